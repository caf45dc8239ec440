"""A trained model in C, by way of _step.c: some rows side by side, all layers in one call, and the drawing of tokens."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import cells
from charrnn.packing import ROWS, WORDS, Array, aligned, pack, unpack
from charrnn.runtime import Runtime

CELLS, ACTIVATIONS = ("mlp", "rnn", "gru", "lstm"), ("tanh", "relu", "sigmoid")
WIDEST = 3  # instruction sets that _step.c has, but for the one that every machine has
ALONE = 20_000_000  # products of a step that are not worth a second thread


def _fields(**kinds: str) -> list[tuple[str, Any]]:
    """The members of a struct, in order, from their types and names."""
    types = {"int": ctypes.c_int64, "pointer": ctypes.c_void_p, "float": ctypes.c_float}
    return [(name, types[kind]) for kind, names in kinds.items() for name in names.split()]


class CMatrix(ctypes.Structure):
    """struct matrix"""

    _fields_ = _fields(int="panels columns", pointer="words units scale")


class CLayer(ctypes.Structure):
    """struct layer"""

    _fields_ = [("w_x", CMatrix), ("w_h", CMatrix), ("w_reset", CMatrix), *_fields(pointer="b b_h")]


class CModel(ctypes.Structure):
    """struct model"""

    _fields_ = [*_fields(int="cell activation reset_after layers gates padded width", pointer="table stack"), ("output", CMatrix),
                *_fields(pointer="output_b")]


class CStep(ctypes.Structure):
    """struct step"""

    _fields_ = _fields(int="rows stride logits_width", pointer="tokens h c logits scratch helper")


class CDraw(ctypes.Structure):
    """struct draw"""

    _fields_ = _fields(int="rows vocabulary width", pointer="logits uniform tokens nats p", float="temperature")


@functools.cache
def library() -> ctypes.CDLL | None:
    """_step.c, compiled; None where it was not built or CHARRNN_KERNELS=plain refuses it."""
    if os.environ.get("CHARRNN_KERNELS") == "plain":
        return None
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_step{suffix}"
        try:
            found = ctypes.CDLL(str(path)) if path.exists() else None
            if found is not None:
                for name, arguments in (("step", 2), ("draw", 1)):
                    function = getattr(found, f"charrnn_{name}")
                    function.argtypes, function.restype = [ctypes.c_void_p] * arguments, None
                found.charrnn_hire.argtypes, found.charrnn_hire.restype = [ctypes.c_int64], ctypes.c_void_p
                found.charrnn_dismiss.argtypes, found.charrnn_dismiss.restype = [ctypes.c_void_p], None
                return found
        except (OSError, AttributeError):
            pass
    return None


def _dismiss(found: ctypes.CDLL, helper: int, process: int) -> None:
    """Let a helper go; a fork of the process that it belongs to has none."""
    if os.getpid() == process:
        found.charrnn_dismiss(helper)


class Weights:
    """A model's weights as _step.c reads them, for one row or for many; the same numbers. ValueError for weights that are not finite."""

    def __init__(self, runtime: Runtime, many: bool, silent: int | None) -> None:
        config, w, H = runtime.config, runtime.weights, runtime.config.hidden
        self.many = many
        self.held: list[Any] = []  # what the pointers point at
        self.gates, self.padded = cells.GATES[config.cell], -(-H // WORDS) * WORDS
        width = -(-self.gates * self.padded // ROWS) * ROWS
        layers = [CLayer() for _ in range(config.layers)]
        self.model = CModel(CELLS.index(config.cell), ACTIVATIONS.index(config.activation), config.gru_reset == "after", config.layers,
                            self.gates, self.padded, width)
        wanted: list[tuple[ctypes.Structure, str, Array, int]] = []  # where a matrix goes, itself (K, N), its gates
        for number, layer in enumerate(layers):
            if number:
                wanted.append((layer, "w_x", w[f"layers.{number}.w_x"], self.gates))
                layer.b = self._keep(self._spread(w[f"layers.{number}.b"], self.gates))
            if config.cell == "gru" and config.gru_reset == "before":
                own = w[f"layers.{number}.w_h"]
                wanted += [(layer, "w_h", own[:, : 2 * H], 2), (layer, "w_reset", own[:, 2 * H :], 1)]
            elif config.cell != "mlp":
                wanted.append((layer, "w_h", w[f"layers.{number}.w_h"], self.gates))
            if f"layers.{number}.b_h" in w:
                layer.b_h = self._keep(self._spread(w[f"layers.{number}.b_h"], 1))
        self._place([*wanted, (self.model, "output", w["output.w"], 0)])
        bias = np.zeros(-(-config.vocabulary // ROWS) * ROWS, np.float32)
        bias[: config.vocabulary] = w["output.b"]
        if silent is not None:
            bias[silent] = -np.inf
        self.logits_width = len(bias)
        stack = (CLayer * config.layers)(*layers)
        self.held.append(stack)
        self.model.stack, self.model.table = ctypes.addressof(stack), self._keep(self._spread(runtime.table, self.gates))
        self.model.output_b = self._keep(bias)

    def _spread(self, part: Array, gates: int) -> Array:
        """(…, gates · H) → (…, gates · P), each gate with zeros to its multiple of 16; 0 gates: as it is."""
        if not gates:
            return part
        hidden = part.shape[-1] // gates
        out = np.zeros((*part.shape[:-1], gates, self.padded), np.float32)
        out[..., :hidden] = part.reshape(*part.shape[:-1], gates, hidden)
        return out.reshape(*part.shape[:-1], gates * self.padded)

    def _place(self, wanted: list[tuple[ctypes.Structure, str, Array, int]]) -> None:
        """All matrices in one stretch of memory, which a system with large pages gives in such."""
        panels = [-(-(gates * self.padded or part.shape[1]) // ROWS) for _, _, part, gates in wanted]
        size, kind = (ROWS, np.float32) if self.many else (3 * WORDS, np.int32)
        sizes = [n * len(part) * size for n, (_, _, part, _) in zip(panels, wanted)]
        room = aligned((sum(sizes),), kind)
        self.held.append(room)
        places = np.split(room, np.cumsum(sizes)[:-1])
        for n, place, (holder, name, part, gates) in zip(panels, places, wanted):
            words, scale = pack(self._spread(part, gates).T)
            place[:] = (unpack(words) if self.many else words).ravel()
            address = place.ctypes.data
            setattr(holder, name, CMatrix(n, len(part), *((None, address) if self.many else (address, None)), self._keep(scale)))

    def _keep(self, part: Array) -> int:
        """Where a copy of it lies, as long as this object does."""
        copy = aligned(part.shape, np.float32)
        copy[:] = part
        self.held.append(copy)
        return int(copy.ctypes.data)


class Stepper:
    """Rows of a model, begun as one, in float32. A row's numbers do not depend on the rows beside it, nor on the threads.

    `many`: more rows will come. `silent`: a token that is never drawn, its logit -inf. `threads` share the rows."""

    def __init__(self, runtime: Runtime, *, many: bool = False, silent: int | None = None, threads: int = 1) -> None:
        found = library()
        if found is None:
            raise ValueError("the C library is not there")
        self.config, self.threads = runtime.config, threads
        self.library, self.step_all, self.draw_all = found, found.charrnn_step, found.charrnn_draw
        self.dismiss: Callable[[], object] = lambda: None  # lets the helper go
        self.weights = Weights(runtime, many or found.charrnn_limit(WIDEST) == 0, silent)
        self.products = self.config.parameters()
        self.model = ctypes.addressof(self.weights.model)
        self.p = aligned((self.weights.logits_width,), np.float64)
        self.pool: ThreadPoolExecutor | None = None
        shape = (self.config.layers, 1, self.weights.padded)
        self._bind(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros((1, self.weights.logits_width), np.float32))

    def _bind(self, h: Array, c: Array, logits: Array) -> None:
        """Go on with these states (L, B, P)."""
        rows, width = h.shape[1], self.weights.logits_width
        self.dismiss()
        self.h, self.c, self.all_logits = aligned(h.shape, np.float32), aligned(h.shape, np.float32), aligned(logits.shape, np.float32)
        self.h[:], self.c[:], self.all_logits[:] = h, c, logits
        self.logits = self.all_logits[:, : self.config.vocabulary]
        self.tokens, self.uniform, self.nats = np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows)
        self.scratch = aligned((4, rows, self.weights.model.width), np.float32)
        parts = min(self.threads, -(-rows * self.products // ALONE)) if rows > 1 else 1
        ends = [rows * part // parts for part in range(parts + 1)]
        self.steps = [CStep(last - first, h[0].size, width, self.tokens[first:].ctypes.data, self.h[0, first:].ctypes.data,
                            self.c[0, first:].ctypes.data, self.all_logits[first:].ctypes.data,
                            self.scratch.ctypes.data + 16 * first * self.weights.model.width) for first, last in itertools.pairwise(ends)]
        self.parts = [ctypes.addressof(step) for step in self.steps]
        if rows == 1 and self.threads > 1 and not self.weights.many:
            helper = self.library.charrnn_hire(max(self.weights.model.width, width) // ROWS)
            if helper is not None:
                self.steps[0].helper, self.dismiss = helper, weakref.finalize(self, _dismiss, self.library, helper, os.getpid())
        if parts > 1 and self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads - 1)
        self.drawing = CDraw(rows, self.config.vocabulary, width, self.all_logits.ctypes.data, self.uniform.ctypes.data,
                             self.tokens.ctypes.data, self.nats.ctypes.data, self.p.ctypes.data)
        self.draw_address = ctypes.addressof(self.drawing)

    def step(self, tokens: Sequence[int] | NDArray[np.integer]) -> Array:
        """Read a token in each row; logits (B, V) of the next ones, in an array that the next step overwrites. IndexError."""
        if tokens is not self.tokens:
            self.tokens[:] = tokens
            least, most = self.tokens.min(), self.tokens.max()
            if least < 0 or most > self.config.vocabulary:
                raise IndexError(f"tokens reach from {least} to {most}, the table has {self.config.vocabulary + 1} rows")
        if len(self.parts) == 1:
            self.step_all(self.model, self.parts[0])
        else:
            assert self.pool is not None
            others = [self.pool.submit(self.step_all, self.model, part) for part in self.parts[1:]]
            self.step_all(self.model, self.parts[0])
            for other in others:
                other.result()
        return self.logits

    def draw(self, temperature: float, uniform: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A token for each row, given a number between 0 and 1 for each; and what it costs in nats at temperature 1."""
        self.uniform[:] = uniform
        self.drawing.temperature = temperature
        self.draw_all(self.draw_address)
        return self.tokens, self.nats

    def repeat(self, rows: int) -> None:
        """Go on with so many copies of the one row."""
        self._bind(self.h.repeat(rows, axis=1), self.c.repeat(rows, axis=1), self.all_logits.repeat(rows, axis=0))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        self._bind(self.h[:, rows], self.c[:, rows], self.all_logits[rows])
