"""A trained model in NumPy, without torch, by the equations of cells.py; `stepper` does the same in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from charrnn import cells
from charrnn.config import ModelConfig

Floats = NDArray[np.float32]
State = tuple[tuple[Floats, ...], ...]  # for each layer what cells.STATES counts, each (B, H)


class Runtime:
    """The weights, named and shaped as `ModelConfig.shapes()`, ready to step.

    Of a bidirectional model it is one tower: that which reads forward, or the other one, which is given its tokens last one first. The
    sum of both towers' logits, less the bias that both have, is the model's.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Floats], *, backward: bool = False) -> None:
        self.config = config
        tower, other = ("back", "layers") if backward else ("layers", "back")
        self.weights = {name.replace("back.", "layers."): value for name, value in weights.items() if not name.startswith(f"{other}.")}
        if config.bidirectional:
            half = slice(config.hidden, None) if backward else slice(None, config.hidden)
            self.weights["output.w"] = weights["output.w"][half]
        table = weights[f"{tower}.0.w_x"]
        if config.embedding:
            table = weights["embedding"] @ table
        self.table = table + weights[f"{tower}.0.b"]  # (V+1, G·H): what each token contributes to the first layer's gates

    def zero_state(self, rows: int) -> State:
        """The state before a text."""
        shape = (rows, self.config.hidden)
        return tuple(tuple(np.zeros(shape, self.table.dtype) for _ in range(cells.STATES[self.config.cell]))
                     for _ in range(self.config.layers))

    def step(self, tokens: NDArray[np.integer], state: State) -> tuple[Floats, State]:
        """tokens (B) → logits (B, V) of the next ones, and the state after."""
        config, w, new = self.config, self.weights, []
        output = x = self.table[tokens]
        for layer in range(config.layers):
            if layer:
                x = output @ w[f"layers.{layer}.w_x"] + w[f"layers.{layer}.b"]
            after = cells.step(np, config.cell, x, state[layer], w.get(f"layers.{layer}.w_h"), w.get(f"layers.{layer}.b_h"),
                               activation=config.activation, reset=config.gru_reset)
            output = after[0]
            new.append(after if cells.STATES[config.cell] else ())
        return output @ w["output.w"] + w["output.b"], tuple(new)


class Rows:
    """Rows of a model side by side, begun as one. `silent`: a token that is never drawn, its logit -inf."""

    def __init__(self, runtime: Runtime, *, silent: int | None = None) -> None:
        self.runtime, self.silent, self.state = runtime, silent, runtime.zero_state(1)

    def step(self, tokens: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Read a token in each row; logits (B, V) of the next ones."""
        logits, self.state = self.runtime.step(np.asarray(tokens), self.state)
        if self.silent is not None:
            logits[:, self.silent] = -np.inf
        return logits

    def repeat(self, rows: int) -> None:
        """Go on with so many copies of the one row."""
        self.state = tuple(tuple(part.repeat(rows, axis=0) for part in layer) for layer in self.state)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        self.state = tuple(tuple(part[rows] for part in layer) for layer in self.state)
