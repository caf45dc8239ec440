"""A model's own numbers while it reads a text: what each token cost, and gates and states of every layer at every step. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import cells
from charrnn.checkpoint import Run
from charrnn.errors import DataError, UsageError
from charrnn.runtime import Floats, Runtime, State

BLOCK = 256  # steps whose logits are held at once

Values = dict[str, Floats]  # of a layer: "hidden", an lstm's "memory", and the names of cells.NAMES, each (T, B, H)


def trace(runtime: Runtime, tokens: NDArray[np.integer], state: State | None = None) -> tuple[Values, ...]:
    """tokens (T, B) → for each layer its values at each step, by the equations of `cells`; `state` is the zero state by default."""
    config, w = runtime.config, runtime.weights
    T, B = tokens.shape
    x, layers = runtime.table[tokens], list[Values]()
    for layer, now in enumerate(runtime.zero_state(B) if state is None else state):
        if layer:
            x = layers[-1]["hidden"] @ w[f"layers.{layer}.w_x"] + w[f"layers.{layer}.b"]
        names = ("hidden", "memory")[: max(1, cells.STATES[config.cell])]
        kept = {name: np.empty((T, B, config.hidden), x.dtype) for name in (*names, *cells.NAMES[config.cell])}
        w_h, b_h = w.get(f"layers.{layer}.w_h"), w.get(f"layers.{layer}.b_h")
        for t in range(T):
            opened = cells.gates(np, config.cell, x[t], now, w_h, b_h, reset=config.gru_reset)
            now = cells.through(np, config.cell, opened, now) if opened else cells.step(
                np, config.cell, x[t], now, w_h, b_h, activation=config.activation)
            for name, value in zip(kept, (*now, *opened)):
                kept[name][t] = value
        layers.append(kept)
    return tuple(layers)


@dataclass(frozen=True)
class Reading:
    """A text as a model read it, T tokens.

    `texts`: of each token the characters that it made whole (at byte level several tokens may make one). `nats` (T) sum to what
    `charrnn evaluate` finds. `likely` (T, K), with probabilities `p` (T, K): what the model held most likely there instead.
    `layers`: as `trace` gives them, each (T, H), after the token was read; of a model that reads both ways those of the tower that reads
    forward, and `back` those of the other one, after it has read the token and all behind it. There a token's surprise, as
    what else was likely, is that given all tokens but itself.
    """

    run: Run
    ids: NDArray[np.int32]
    texts: list[str]
    nats: NDArray[np.float64]
    likely: NDArray[np.int64]
    p: NDArray[np.float64]
    layers: tuple[Values, ...]
    back: tuple[Values, ...] = ()

    def turned(self) -> Reading:
        """The same with the layers that read backward as `layers`. UsageError where there are none."""
        if not self.back:
            raise UsageError(f"--backward: {self.run.path} reads one way; leave the option out")
        return dataclasses.replace(self, layers=self.back, back=self.layers)

    def spans(self) -> list[tuple[str, int, int]]:
        """Whole characters: (text, first token, token after the last)."""
        found, first = [], 0
        for at, text in enumerate(self.texts):
            if text or at + 1 == len(self.texts):
                found.append((text, first, at + 1))
                first = at + 1
        return found

    def unit(self, name: str) -> Floats:
        """The values (T) of a hidden unit LAYER:N, or of an lstm's memory LAYER:cN, both counted from 1. UsageError."""
        layer, _, number = name.partition(":")
        kind = "memory" if number.startswith("c") else "hidden"
        config = self.run.config
        values = self._layer(layer, f"--unit {name}").get(kind)
        number = number.removeprefix("c")
        if values is None or not number.isdecimal() or not 1 <= int(number) <= config.hidden:
            more = f", or {layer}:c1 to {layer}:c{config.hidden} for its memory" if config.cell == "lstm" else ""
            raise UsageError(f"--unit {name}: write LAYER:N; units of a layer are {layer}:1 to {layer}:{config.hidden}{more}")
        return values[:, int(number) - 1]

    def gate(self, name: str) -> Floats:
        """The mean (T) over the units of a gate, NAME or LAYER:NAME; of the last layer where none is named. UsageError."""
        layer, _, gate = name.rpartition(":")
        names = [one for one in cells.NAMES[self.run.config.cell] if one != "candidate"]
        if gate not in names:
            has = f"its gates are {', '.join(names)}" if names else "it has none"
            raise UsageError(f"--gate {name}: the cell of this run is {self.run.config.cell}; {has}")
        mean: Floats = self._layer(layer or str(len(self.layers)), f"--gate {name}")[gate].mean(axis=1)
        return mean

    def _layer(self, number: str, said: str) -> Values:
        if not number.isdecimal() or not 1 <= int(number) <= len(self.layers):
            raise UsageError(f"{said}: there is no layer {number or 0}; layers are counted from 1 to {len(self.layers)}")
        return self.layers[int(number) - 1]

    def as_json(self, values: NDArray[Any] | None = None) -> dict[str, Any]:
        """Token by token: its characters, its nats, and `values` (T) if any are given. What both sides tell of is named pseudo-nats."""
        nats_name = "pseudo_nats" if self.run.config.bidirectional else "nats"
        tokens = [{"text": text, nats_name: float(nats)} for text, nats in zip(self.texts, self.nats)]
        for token, value in zip(tokens, () if values is None else values.tolist()):
            token["value"] = value
        return {"run": str(self.run.path), nats_name: float(self.nats.sum()), "tokens": tokens}


def read(run: Run, text: str, *, alternatives: int = 0) -> Reading:
    """Read a text from the zero state, one token at a time, from both ends where the model does. DataError for an empty one."""
    tokenizer, towers, sides = run.tokenizer, list[tuple[Values, ...]](), []
    ids = tokenizer.encode(text)
    if not len(ids):
        raise DataError("the text is empty: there is nothing to read")
    known = tokenizer.model_ids(ids)
    for way in (1, -1)[: len(run.config.towers)]:
        runtime = Runtime(run.config, run.weights, backward=way < 0)
        seen = trace(runtime, np.concatenate([[tokenizer.start], known[::way]])[:, None])
        sides.append((seen[-1]["hidden"][:-1, 0][::way], runtime.weights["output.w"]))
        towers.append(tuple({name: value[1:, 0][::way] for name, value in layer.items()} for layer in seen))
    nats, likely, p = np.empty(len(ids)), [], []
    for at in range(0, len(ids), BLOCK):
        logits = run.weights["output.b"] + sum(hidden[at : at + BLOCK] @ w for hidden, w in sides)
        log_p = logits.astype(np.float64)
        log_p -= np.logaddexp.reduce(log_p, axis=1, keepdims=True)
        nats[at : at + BLOCK] = -np.take_along_axis(log_p, known[at : at + BLOCK, None], 1)[:, 0]
        best = np.argsort(-log_p, axis=1, kind="stable")[:, :alternatives] if alternatives else np.empty((len(logits), 0), np.int64)
        likely.append(best)
        p.append(np.exp(np.take_along_axis(log_p, best, 1)))
    if tokenizer.escape is not None:
        nats[known == tokenizer.escape] += tokenizer.unknown_nats
    decoder = tokenizer.decoder()
    texts = [decoder.feed(token) for token in ids.tolist()]
    texts[-1] += decoder.flush()
    return Reading(run, ids, texts, nats, np.concatenate(likely), np.concatenate(p), *towers)
