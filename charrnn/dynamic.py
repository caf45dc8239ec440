"""Dynamic evaluation (Krause et al. 2018): a model that goes on learning from the text that it reads.

One row reads the text once, a segment at a time. Each token of a segment is predicted with weights that have seen what stands before
the segment and nothing of it; then the weights take one step down the gradient of what the segment cost. The gradient is divided by
the running root mean square of its own values: Adam (Kingma and Ba 2015) without momentum. (Krause et al. take those squares from the
training text, which a run does not hold.) A pull back to the trained weights keeps a long text from carrying the model away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn import optim
from charrnn.checkpoint import Run
from charrnn.corpus import tokenized
from charrnn.errors import UsageError
from charrnn.evaluation import Held, Tokens, evaluate
from charrnn.kernels import mix_, summed_nats
from charrnn.metrics import Score
from charrnn.model import Model, detached
from charrnn.text import Text

Progress = Callable[[int, int], None]  # tokens read so far, and in all
RATES = {"lstm": 1e-3, "gru": 8e-4, "rnn": 6e-4, "mlp": 6e-4}  # of models up to 256 wide


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the model learns as it reads; without a `rate`, at the one that suits its cell and width. `memory`: the share of the mean
    squares that a segment leaves as they are; `pull`: the share of the way back to the trained weights that is gone after each."""

    segment: int = 64
    rate: float | None = None
    memory: float = 0.99
    pull: float = 0.002
    clip: float = 1.0


def rate(cell: str, hidden: int) -> float:
    """Each step moves every weight about as far; the more of them act together, the shorter it must be."""
    return RATES[cell] * min(1.0, 256 / hidden)


class Reader:
    """A model, which changes as it reads, and the state that it carries."""

    def __init__(self, model: Model, rule: Rule | None = None) -> None:
        self.model, self.rule = model, rule or Rule()
        self.weights: list[torch.Tensor] = list(model.parameters())
        self.trained = [weight.detach().clone() for weight in self.weights]
        self.rate = rate(model.config.cell, model.config.hidden) if self.rule.rate is None else self.rule.rate
        self.adam = optim.AdamW(self.weights, betas=(0.0, self.rule.memory))
        self.state, self.last = model.zero_state(1), model.config.vocabulary

    def read(self, tokens: NDArray[np.integer]) -> float:
        """Score the tokens that come next, then learn from them; the nats that they cost."""
        targets = torch.from_numpy(tokens.astype(np.int64)).to(self.trained[0].device)
        inputs = torch.cat([targets.new_tensor([self.last]), targets[:-1]])[:, None]
        hidden, state = self.model.hidden(inputs, self.state)
        nats = summed_nats(hidden.flatten(0, 1), self.model.output["w"], self.model.output["b"], targets)
        self.state, self.last = detached(state), int(tokens[-1])
        (nats / len(targets)).backward()  # type: ignore[no-untyped-call]
        norm = optim.clip(self.weights, self.rule.clip)
        with torch.no_grad():
            if math.isfinite(norm):  # a segment whose gradient overflows teaches nothing
                self.adam.step(self.rate)
                for weight, trained in zip(self.weights, self.trained):
                    mix_(weight, trained, 1 - self.rule.pull, self.rule.pull)
        optim.forget(self.weights)
        return float(nats.detach())


def score(model: Model, tokens: Tokens, rule: Rule | None = None, progress: Progress | None = None) -> float:
    """The nats of all tokens under a model that learns as it reads, the first one predicted from the zero state and the start symbol.
    `model` is left as the text has made it."""
    reader, nats = Reader(model, rule), 0.0
    for start in range(0, tokens.count, reader.rule.segment):
        stop = min(start + reader.rule.segment, tokens.count)
        nats += reader.read(tokens.read(start, stop))
        if progress is not None:
            progress(stop, tokens.count)
    return nats


def loaded(run: Run, device: str) -> Model:
    """A run's model, to be changed. UsageError for one that reads both ways."""
    if run.config.bidirectional:
        raise UsageError(f"--dynamic: {run.path} reads both ways, and so knows what follows a token when it scores it; take a run that "
                         "reads from left to right")
    model = Model(run.config).to(device)
    model.load(run.weights)
    return model


def figures(run: Run, text: Text, *, device: str = "cpu", rule: Rule | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """The figures of `evaluation.evaluate`, which are those of the model as it was trained, and those of one that learns as it reads
    beside them: their names begin with `dynamic_`."""
    model = loaded(run, device)
    part = (corpus := tokenized(text, run.tokenizer)).training
    static = evaluate(run, text, device=device, corpus=corpus)
    began = time.monotonic()
    nats = score(model, part.store, rule, progress) + part.unknown * run.tokenizer.unknown_nats
    result = Score(nats, part.tokens, text.characters, text.bytes)
    return static | {
        "dynamic_nats_per_character": result.nats_per_character, "dynamic_bits_per_character": result.bits_per_character,
        "dynamic_perplexity": result.perplexity, "dynamic_seconds": time.monotonic() - began}


def adapted(run: Run, prompt: str, *, rule: Rule | None = None, progress: Progress | None = None) -> Run:
    """The run with the weights that it has after reading a prompt, on the CPU."""
    ids = run.tokenizer.model_ids(run.tokenizer.encode(prompt))
    model = loaded(run, "cpu")
    score(model, Held(ids), rule, progress)
    return replace(run, weights=model.weights())
