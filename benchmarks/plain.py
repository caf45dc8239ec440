"""What a user writes in plain PyTorch: torch.nn's modules, and nothing that is set, cached or fused by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MODULES: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CLIP, LR = 1.0, 1e-3

State = Any  # what torch.nn's modules return: (L, B, H), or a pair of them


class Plain(nn.Module):
    """tokens (T, B) → logits (T, B, V)."""

    def __init__(self, cell: str, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.recurrent = MODULES[cell](embedding, hidden, layers)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor, state: State = None) -> tuple[Tensor, State]:
        outputs, state = self.recurrent(self.embedding(tokens), state)
        return self.output(outputs), state


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR)


def step(model: Plain, adamw: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, state: State,
         clip: float = CLIP) -> tuple[float, State]:
    """One update; the mean loss that it started from, and the state to go on with."""
    adamw.zero_grad()
    logits, state = model(inputs, state)
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    adamw.step()
    state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
    return loss.item(), state


@torch.no_grad()
def write(model: Plain, token: int = 0, generator: torch.Generator | None = None) -> Iterator[int]:
    """Tokens without end, one at a time, each drawn from what the model says after the last."""
    state = None
    while True:
        logits, state = model(torch.tensor([[token]]), state)
        p = torch.softmax(logits[0, 0], dim=-1)
        token = int(torch.multinomial(p, 1, generator=generator))
        yield token
