"""The recurrent language model: tokens in, logits out, the state in and out of every call.

One that reads both ways has two towers of layers that never see each other below the output: the token at t is predicted from the
forward state at t−1 and the backward state at t+1, so that nothing leaks. (In a stack of layers that each join both directions, as
Schuster and Paliwal's (1997) network is often built, the second layer would be told at t−1 what the backward state there knows: the
token at t itself.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from charrnn.cells import GATES, STATES
from charrnn.config import ModelConfig
from charrnn.kernels import cudnn, linear, recur, times
from charrnn.kernels.buffers import Lease
from charrnn.kernels.plain import dropped

State = tuple[tuple[Tensor, ...], ...]  # for each layer what cells.STATES counts, each (B, H)


@dataclass(frozen=True)
class Masks:
    """What a layer drops in one update: of the recurrent weights (H, G·H), and of the outputs of each row (B, H). What is kept is larger
    for it."""

    weights: Tensor | None = None
    outputs: Tensor | None = None

    def of(self, rows: slice) -> Masks:
        """Those of some of the rows."""
        return Masks(self.weights, None if self.outputs is None else self.outputs[rows])

    def thinned(self, w_h: Tensor | None) -> Tensor | None:
        """What is left of recurrent weights."""
        return w_h if w_h is None or self.weights is None else times(w_h, self.weights)


def kept(like: Tensor, shape: Sequence[int], share: float, generator: torch.Generator | None) -> Tensor:
    """A mask of that shape, on the device of `like` and of its type: 0 for a `share` of its elements, 1/(1 − share) for the rest.

    On the CPU a share is rounded to 1/256, as each element is drawn as one byte of a random number: `bernoulli_` takes ten times as long,
    a fifth of a training step with 384 units.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape).bernoulli_(1 - share, generator=generator) / (1 - share)
    count, dropped, lease = math.prod(shape), round(256 * share), Lease()
    numbers = lease.tensor(torch.int64, -(-count // 8)).random_(-(1 << 63), None, generator=generator)
    keep = numbers.view(torch.uint8)[:count].view(*shape) >= dropped
    lease.end()
    return keep.to(like.dtype).mul_(256 / (256 - dropped))


class Layer(nn.Module):
    """One recurrent layer. Its input arrives as tokens (the first layer's) or as the output of the layer below."""

    def __init__(self, cell: str, inputs: int, hidden: int, *, activation: str = "tanh", reset: str = "before") -> None:
        super().__init__()
        self.cell, self.activation, self.reset = cell, activation, reset
        gates = GATES[cell]
        self.w_x = nn.Parameter(torch.empty(inputs, gates * hidden))
        self.b = nn.Parameter(torch.zeros(gates * hidden))
        self.w_h = nn.Parameter(torch.empty(hidden, gates * hidden)) if cell != "mlp" else None
        self.b_h = nn.Parameter(torch.zeros(hidden)) if cell == "gru" and reset == "after" else None

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot input weights; recurrent weights orthogonal gate by gate (Saxe et al. 2014); an open forget gate (Gers et al. 2000)."""
        hidden = self.b.numel() // GATES[self.cell]
        with torch.no_grad():
            self.w_x.normal_(0, math.sqrt(2 / (self.w_x.shape[0] + hidden)), generator=generator)
            self.b.zero_()
            if self.w_h is not None:
                for gate in torch.split(self.w_h, hidden, dim=1):
                    gate.copy_(torch.linalg.qr(torch.empty_like(gate).normal_(generator=generator))[0])
            if self.b_h is not None:
                self.b_h.zero_()
            if self.cell == "lstm":
                self.b[hidden : 2 * hidden] = 1

    def forward(self, x: Tensor | None, state: tuple[Tensor, ...], *, tokens: Tensor | None = None, masks: Masks = Masks(),
                precision: str = "float32") -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (T, B, inputs) → (T, B, H). With tokens (T, B), x is the embedding (V+1, inputs) that they are looked up in; None: one-hot.
        `masks`: what is dropped."""
        if self.w_h is not None and self.w_x.is_cuda and cudnn.serves(self.cell, self.activation, self.reset):
            return self.by_cudnn(x, state, tokens=tokens, masks=masks, precision=precision)
        if tokens is not None and x is not None and tokens.numel() < len(x):  # fewer than a table would have rows
            x, tokens, w_x, b_x = functional.embedding(tokens, x), None, self.w_x, self.b
        elif tokens is not None:
            x, w_x, b_x = self.w_x + self.b if x is None else linear(x, self.w_x, self.b, precision=precision), None, None
        else:
            w_x, b_x = self.w_x, self.b
        assert x is not None
        return recur(self.cell, x, masks.thinned(self.w_h), self.b_h, state, tokens=tokens, w_x=w_x, b_x=b_x, mask=masks.outputs,
                     activation=self.activation, reset=self.reset, precision=precision)

    def by_cudnn(self, x: Tensor | None, state: tuple[Tensor, ...], *, tokens: Tensor | None = None, masks: Masks = Masks(),
                 precision: str = "float32") -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same as `forward` by torch's kernels, which on a GPU are cuDNN's; on the CPU they serve as a test of this path."""
        w_h = masks.thinned(self.w_h)
        if tokens is not None:
            x = functional.embedding(tokens, torch.eye(len(self.w_x), device=self.w_x.device, dtype=self.w_x.dtype) if x is None else x)
        assert x is not None and w_h is not None
        outputs, after = cudnn.layer(self.cell, x, self.w_x, self.b, w_h, self.b_h, state, activation=self.activation, precision=precision)
        return dropped(outputs, masks.outputs), after


class Model(nn.Module):
    """Embedding (or one-hot), L recurrent layers, L more that read backward where the model is bidirectional, and the output layer."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        V, E, H = config.vocabulary, config.embedding, config.hidden
        self.embedding = nn.Parameter(torch.empty(V + 1, E)) if E else None
        self.layers, self.back = (nn.ModuleList(
            Layer(config.cell, H if layer else E or V + 1, H, activation=config.activation, reset=config.gru_reset)
            for layer in range(config.layers if tower in config.towers else 0)) for tower in ("layers", "back"))
        self.output = nn.ParameterDict({"w": nn.Parameter(torch.empty(len(config.towers) * H, V)), "b": nn.Parameter(torch.zeros(V))})
        self.initialise(generator or torch.Generator().manual_seed(0))

    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights, drawn from `generator`."""
        with torch.no_grad():
            if self.embedding is not None:
                self.embedding.normal_(generator=generator)
            for layer in (*self.layers, *self.back):
                layer.initialise(generator)
            self.output["w"].normal_(0, 1 / math.sqrt(len(self.output["w"])), generator=generator)
            self.output["b"].zero_()

    def zero_state(self, rows: int) -> State:
        """The state of one tower before a text."""
        one = self.output["w"]
        return tuple(tuple(one.new_zeros(rows, self.config.hidden) for _ in range(STATES[self.config.cell]))
                     for _ in range(self.config.layers))

    def masks(self, rows: int, *, dropout: float, weight_drop: float, generator: torch.Generator | None) -> tuple[Masks, ...]:
        """What each layer drops, those that read backward last.

        `dropout` is variational (Gal and Ghahramani 2016): a row's mask is the same at each of its T steps. `weight_drop` drops
        recurrent weights, the same for all rows and steps (Merity et al. 2018).
        """
        one, layers = self.output["w"], [layer for layer in (*self.layers, *self.back) if isinstance(layer, Layer)]
        return tuple(Masks(kept(one, layer.w_h.shape, weight_drop, generator) if weight_drop and layer.w_h is not None else None,
                           kept(one, (rows, self.config.hidden), dropout, generator) if dropout else None) for layer in layers)

    def hidden(self, tokens: Tensor, state: State, *, masks: Sequence[Masks] = (), backward: bool = False,
               precision: str = "float32") -> tuple[Tensor, State]:
        """tokens (T, B) → the last layer's outputs (T, B, H) and the state after.

        `masks`: what the layers drop. `backward`: of the tower that reads backward, which is given its tokens in the order that it reads
        them in, the last one first. `precision` as in kernels.
        """
        new, outputs = [], tokens
        for number, layer in enumerate(self.back if backward else self.layers):
            source, ids = (outputs, None) if number else (self.embedding, tokens)
            assert isinstance(layer, Layer)
            outputs, after = layer(source, state[number], tokens=ids, masks=masks[number] if masks else Masks(), precision=precision)
            new.append(after)
        return outputs, tuple(new)

    def both(self, before: Tensor, after: Tensor, state: State, back: State, *, masks: Sequence[Masks] = (),
             precision: str = "float32") -> tuple[Tensor, State]:
        """What the output layer of a bidirectional model sees (T, B, 2H), and the forward state after.

        before (T, B): the token before each predicted one. after (T+A, B): the token after each, and A more that the backward tower is
        to read first. `back`: its state at the right end of `after`.
        """
        forward, state = self.hidden(before, state, masks=masks[: len(self.layers)], precision=precision)
        backward, _ = self.hidden(after.flip(0), back, masks=masks[len(self.layers) :], backward=True, precision=precision)
        return torch.cat([forward, backward.flip(0)[: len(forward)]], 2), state

    def forward(self, tokens: Tensor, state: State, after: Tensor | None = None) -> tuple[Tensor, State]:
        """tokens (T, B) → logits (T, B, V) of the tokens that follow, and the state after; a bidirectional model is given the tokens
        `after` those as well (see `both`), and reads them from the zero state."""
        if after is None:
            outputs, state = self.hidden(tokens, state)
        else:
            outputs, state = self.both(tokens, after, state, self.zero_state(tokens.shape[1]))
        return outputs @ self.output["w"] + self.output["b"], state

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights, named and shaped as `ModelConfig.shapes()`."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.named_parameters()}

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """The reverse."""
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.copy_(torch.from_numpy(weights[name]))


def detached(state: State) -> State:
    """The same state, cut off from the steps that led to it."""
    return tuple(tuple(part.detach() for part in layer) for layer in state)
