"""Recurrent cells and connections that charrnn does not have, each in its obvious form: a loop over steps that PyTorch differentiates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from charrnn.config import ModelConfig
from charrnn.model import Layer, Masks, Model, State


class Lstm(Layer):
    """charrnn's lstm, step by step: x (T, B, inputs) and the states H, C (B, H) → outputs (T, B, H) and the states after."""

    TABLES: tuple[str, ...] = ("w_x",)  # matrices that see nothing but the input

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__("lstm", inputs, hidden)
        self.hidden = hidden

    def zero_state(self, rows: int) -> tuple[Tensor, ...]:
        return self.w_x.new_zeros(rows, self.hidden), self.w_x.new_zeros(rows, self.hidden)

    def mixed(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the gates see in place of X_t and H_{t−1}."""
        return x, h

    def gates(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.addmm(torch.addmm(self.b, x, self.w_x), h, self.w_h)

    def read(self, c: Tensor) -> Tensor:
        return torch.tanh(c)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:  # type: ignore[override]
        (h, c), outputs = state, []
        for x_t in x:
            i, f, candidate, o = self.gates(*self.mixed(x_t, h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(candidate)
            h = torch.sigmoid(o) * self.read(c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)


class Mogrifier(Lstm):
    """Input and state gate each other `rounds` times before the lstm sees them (Melis et al. 2020): X ← 2σ(H Q) ⊙ X, then
    H ← 2σ(X R) ⊙ H, and so on. Each Q and R is the product of two matrices where a `rank` is given. Q and R begin at 0: as an lstm."""

    TABLES = ()

    def __init__(self, inputs: int, hidden: int, *, rounds: int = 5, rank: int = 0) -> None:
        super().__init__(inputs, hidden)
        shapes = [(inputs, hidden) if number % 2 else (hidden, inputs) for number in range(rounds)]
        pairs = [((rows, rank), (rank, columns)) if rank else ((rows, columns),) for rows, columns in shapes]
        self.mixers = nn.ModuleList(nn.ParameterList(torch.zeros(shape) for shape in pair) for pair in pairs)

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        for pair in self.mixers:
            if len(pair) == 2:
                nn.init.orthogonal_(pair[0], generator=generator)

    def mixed(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        for number, pair in enumerate(self.mixers):
            product = x if number % 2 else h
            for matrix in pair:
                product = product @ matrix
            x, h = (x, 2 * torch.sigmoid(product) * h) if number % 2 else (2 * torch.sigmoid(product) * x, h)
        return x, h


class Multiplicative(Lstm):
    """The gates see M_t = (X_t W_mx) ⊙ (H_{t−1} W_mh) in place of H_{t−1} (Krause et al. 2016)."""

    TABLES = ("w_x", "w_mx")

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.w_mx, self.w_mh = nn.Parameter(torch.empty(inputs, hidden)), nn.Parameter(torch.empty(hidden, hidden))

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        nn.init.normal_(self.w_mx, 0, 1 / math.sqrt(len(self.w_mx)), generator=generator)
        nn.init.orthogonal_(self.w_mh, generator=generator)

    def mixed(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x, (x @ self.w_mx) * (h @ self.w_mh)


class Normed(Lstm):
    """Layer norm of both products and of the cell that is read (Ba et al. 2016)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.of_x, self.of_h, self.of_c = (nn.LayerNorm(size, bias=size == hidden) for size in (4 * hidden, 4 * hidden, hidden))

    def gates(self, x: Tensor, h: Tensor) -> Tensor:
        return self.of_x(x @ self.w_x) + self.of_h(h @ self.w_h) + self.b

    def read(self, c: Tensor) -> Tensor:
        return torch.tanh(self.of_c(c))


def stepped(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """H_t = A_t ⊙ H_{t−1} + B_t, one step after the other: (T, B, H)."""
    outputs = []
    for a_t, b_t in zip(a, b):
        h = torch.addcmul(b_t, a_t, h)
        outputs.append(h)
    return torch.stack(outputs)


def scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """The same in log2 T passes over all steps: each doubles how many steps A and B stand for (Hillis and Steele 1986)."""
    shift = 1
    while shift < len(a):
        b = torch.cat([b[:shift], torch.addcmul(b[shift:], a[shift:], b[:-shift])])
        a = torch.cat([a[:shift], a[shift:] * a[:-shift]])
        shift *= 2
    return torch.addcmul(b, a, h)


class MinGru(Layer):
    """Gates that see the input alone, so that all steps can be computed at once (Feng et al. 2024):
    H_t = (1 − Z_t) ⊙ H_{t−1} + Z_t ⊙ H̃_t."""

    GATES, WIDTH, TABLES = 2, 1, ("w_x",)

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__("mlp", self.WIDTH * inputs, self.GATES * hidden)
        self.inputs, self.hidden = inputs, hidden

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot, and states that change slowly."""
        with torch.no_grad():
            self.w_x.normal_(0, math.sqrt(2 / (len(self.w_x) + self.hidden)), generator=generator)
            self.b.zero_()
            self.b[: self.hidden] = -1

    def zero_state(self, rows: int) -> tuple[Tensor, ...]:
        return (self.w_x.new_zeros(rows, self.hidden),)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:  # type: ignore[override]
        z, candidate = (x @ self.w_x + self.b).chunk(2, 2)
        z = torch.sigmoid(z)
        outputs = scan(1 - z, z * candidate, state[0])
        return outputs, (outputs[-1],)


class Qrnn(MinGru):
    """The same with an output gate, all of them of two inputs side by side (Bradbury et al. 2017): C_t = (1 − Z_t) ⊙ C_{t−1} + Z_t ⊙ C̃_t,
    H_t = O_t ⊙ C_t."""

    GATES, WIDTH = 3, 2

    def zero_state(self, rows: int) -> tuple[Tensor, ...]:
        return self.w_x.new_zeros(rows, self.hidden), self.w_x.new_zeros(rows, self.inputs)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:  # type: ignore[override]
        before = torch.cat([state[1][None], x[:-1]])
        z, candidate, o = (torch.cat([before, x], 2) @ self.w_x + self.b).chunk(3, 2)
        z = torch.sigmoid(z)
        cells = scan(1 - z, z * torch.tanh(candidate), state[0])
        return torch.sigmoid(o) * cells, (cells[-1], x[-1])


@dataclasses.dataclass(frozen=True)
class Form:
    """`layers` of one kind. `residual`: the upper ones add to what they are given. `skip`: the output layer sees the embedding too.
    `tied`: embedding and output layer are one matrix (Press and Wolf 2017, Inan et al. 2017), to which a projection leads where E ≠ H."""

    layer: Callable[..., Layer] = Lstm
    layers: int = 1
    residual: bool = False
    skip: bool = False
    tied: bool = False


def mogrifier(rounds: int, rank: int = 0) -> Callable[..., Layer]:
    return lambda *sizes: Mogrifier(*sizes, rounds=rounds, rank=rank)


FORMS = {
    "lstm": Form(), "mogrifier-2": Form(mogrifier(2)), "mogrifier": Form(mogrifier(5)), "mogrifier-low": Form(mogrifier(5, 16)),
    "multiplicative": Form(Multiplicative), "norm": Form(Normed), "skip": Form(skip=True), "deep": Form(layers=2),
    "residual": Form(layers=2, residual=True), "mingru": Form(MinGru, layers=3, residual=True), "qrnn": Form(Qrnn, layers=2, residual=True),
    "tied": Form(tied=True)}


class Tried(Model):
    """A model of this form; charrnn's optimizer and its scoring take it for one of its own."""

    def __init__(self, form: Form, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        V, E, H = config.vocabulary, config.embedding, config.hidden
        self.form = form
        self.layers = nn.ModuleList(form.layer(H if n else E, H) for n in range(form.layers))
        if form.tied:
            self.embedding = nn.Parameter(torch.empty(1, E))  # the start symbol's row: the others are the output layer's columns
        self.projection = nn.Parameter(torch.empty(H, E)) if form.tied and E != H else None
        self.output["w"] = nn.Parameter(torch.empty(E if form.tied else H + E * form.skip, V))
        self.initialise(generator)
        if self.projection is not None:
            nn.init.orthogonal_(self.projection, generator=generator)

    def zero_state(self, rows: int) -> State:
        return tuple(layer.zero_state(rows) for layer in self.layers)

    def products(self) -> int:
        """What a character costs, forward: those of every matrix but the ones of a first layer that see nothing but the token."""
        tables = {f"0.{name}" for name in self.layers[0].TABLES}
        count = sum(p.numel() for name, p in self.layers.named_parameters() if p.ndim == 2 and name not in tables)
        count += self.output["w"].numel() - self.form.skip * self.config.embedding * self.config.vocabulary
        return count + (0 if self.projection is None else self.projection.numel())

    def hidden(self, tokens: Tensor, state: State, *, masks: Sequence[Masks] = (), **_: Any) -> tuple[Tensor, State]:
        table = self.embedding
        if self.form.tied:  # the output layer's columns are of length 1, an embedding's numbers are
            table = torch.cat([self.output["w"].t() * math.sqrt(len(self.output["w"])), table])
        x, new = functional.embedding(tokens, table), []
        embedded = x
        for number, layer in enumerate(self.layers):
            outputs, after = layer(x, state[number])
            x = outputs + x if number and self.form.residual else outputs
            new.append(after)
        if masks:
            x = x * masks[-1].outputs
        if self.projection is not None:
            x = x @ self.projection
        return torch.cat([x, embedded], 2) if self.form.skip else x, tuple(new)
