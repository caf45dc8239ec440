"""A trained model in NumPy, without torch: `Runtime` steps any number of rows by the equations, `Stream` one row as fast as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from charrnn import cells
from charrnn.config import ModelConfig
from charrnn.matvec import Matrix

Floats = NDArray[np.float32]
State = tuple[tuple[Floats, ...], ...]  # for each layer what cells.STATES counts, each (B, H)


class Runtime:
    """The weights, named and shaped as `ModelConfig.shapes()`, ready to step."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Floats]) -> None:
        self.config = config
        self.weights = weights
        table = weights["layers.0.w_x"]
        if config.embedding:
            table = weights["embedding"] @ table
        self.table = table + weights["layers.0.b"]  # (V+1, G·H): what each token contributes to the first layer's gates

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


class Stream:
    """One row, the weights as `Matrix` keeps them. What enters a σ is halved beforehand, as σ(x) = ½ tanh(x/2) + ½, so that one tanh
    serves all gates of a step; the state is overwritten in place."""

    def __init__(self, runtime: Runtime) -> None:
        config, w, H = runtime.config, runtime.weights, runtime.config.hidden
        self.runtime, self.config, dtype = runtime, config, runtime.table.dtype
        self.plain = config.cell == "mlp" or (config.cell == "rnn" and config.activation != "tanh")
        self.state = runtime.zero_state(1)
        if self.plain:
            return
        half = np.repeat(np.array({"lstm": [0.5, 0.5, 1, 0.5], "gru": [0.5, 0.5, 1], "rnn": [1]}[config.cell], dtype), H)
        self.table = runtime.table * half
        self.h = [*np.zeros((config.layers, H), dtype)]
        self.c = [*np.zeros((config.layers, H), dtype)]
        self.gates = np.empty(len(half), dtype)
        self.spare = np.empty(len(half), dtype)
        self.inner = np.empty(H, dtype)
        self.kept = np.empty(H, dtype)
        self.logits = np.empty(config.vocabulary, dtype)
        layers = range(config.layers)
        self.w_x = [Matrix((w[f"layers.{layer}.w_x"] * half).T) for layer in layers[1:]]
        self.b = [w[f"layers.{layer}.b"] * half for layer in layers]
        apart = 2 * H if config.cell == "gru" and config.gru_reset == "before" else len(half)  # gates that see h itself
        w_h = [(w[f"layers.{layer}.w_h"] * half).T for layer in layers]
        self.w_h = [Matrix(part[:apart]) for part in w_h]
        self.w_reset = [Matrix(part[apart:]) for part in w_h]
        self.into = self.gates[:apart]
        self.b_h = [w.get(f"layers.{layer}.b_h", self.inner) for layer in layers]
        self.out, self.out_b = Matrix(w["output.w"].T), w["output.b"]

    def feed(self, token: int) -> Floats:
        """Read a token; logits (V) of the next one."""
        if self.plain:
            several, self.state = self.runtime.step(np.array([token]), self.state)
            return cast(Floats, several[0])
        step = {"lstm": self._lstm, "gru": self._gru, "rnn": self._rnn}[self.config.cell]
        x = self.table[token]
        for layer in range(self.config.layers):
            if layer:
                x = self.w_x[layer - 1].dot(self.h[layer - 1], self.spare)
                x += self.b[layer]
            step(layer, x)
        return cast(Floats, self.out.dot(self.h[-1], self.logits) + self.out_b)

    def _rnn(self, layer: int, x: Floats) -> None:
        self.w_h[layer].dot(self.h[layer], self.into)
        np.add(self.gates, x, out=self.gates)
        np.tanh(self.gates, out=self.h[layer])

    def _lstm(self, layer: int, x: Floats) -> None:
        size, gates, inner, c = self.config.hidden, self.gates, self.inner, self.c[layer]
        self.w_h[layer].dot(self.h[layer], self.into)
        gates += x
        np.tanh(gates, out=gates)
        candidate, o = gates[2 * size : 3 * size], gates[3 * size :]
        i_f = gates[: 2 * size]
        i_f *= 0.5
        i_f += 0.5
        o *= 0.5
        o += 0.5
        c *= gates[size : 2 * size]
        np.multiply(gates[:size], candidate, out=inner)
        c += inner
        np.tanh(c, out=inner)
        np.multiply(o, inner, out=self.h[layer])

    def _gru(self, layer: int, x: Floats) -> None:
        size, h, inner = self.config.hidden, self.h[layer], self.inner
        self.w_h[layer].dot(h, self.into)
        rz = self.gates[: 2 * size]
        rz += x[: 2 * size]
        np.tanh(rz, out=rz)
        rz *= 0.5
        rz += 0.5
        r, z = rz[:size], rz[size:]
        if self.config.gru_reset == "after":
            np.add(self.gates[2 * size :], self.b_h[layer], out=inner)
            inner *= r
        else:
            self.w_reset[layer].dot(np.multiply(r, h, out=self.kept), inner)
        inner += x[2 * size :]
        np.tanh(inner, out=inner)
        h -= inner  # z h + (1 − z) h̃ = h̃ + z (h − h̃)
        h *= z
        h += inner
