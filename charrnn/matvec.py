"""A matrix times a vector: `Matrix` keeps float32 weights in 24 bits where _matvec.c was built: less to read for a product."""

from __future__ import annotations

import ctypes
import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of floats
WORDS, ROWS = 16, 64  # 3 x 16 words of 32 bits hold a column of 64 weights: a panel
UNIT = 256.0  # of a word, a weight's unit
MOST = np.float32(2**23 - 2)  # units: what 24 bits hold, rounding included


class Call(ctypes.Structure):
    """struct matvec"""

    _fields_ = [("rows", ctypes.c_int64), ("columns", ctypes.c_int64), ("words", ctypes.c_void_p), ("scale", ctypes.c_void_p),
                ("x", ctypes.c_void_p), ("y", ctypes.c_void_p)]


@functools.cache
def library() -> ctypes.CDLL | None:
    """_matvec.c, compiled; None where it was not built or CHARRNN_KERNELS=plain refuses it."""
    if os.environ.get("CHARRNN_KERNELS") == "plain":
        return None
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_matvec{suffix}"
        try:
            found = ctypes.CDLL(str(path)) if path.exists() else None
            if found is not None:
                found.charrnn_matvec.argtypes, found.charrnn_matvec.restype = [ctypes.c_void_p], None
                return found
        except (OSError, AttributeError):
            pass
    return None


class Matrix:
    """weights (N, K), ready for products. In 24 bits a weight is off by at most half a unit, its row's largest over 2^23 - 2."""

    def __init__(self, weights: Array) -> None:
        self.shape = weights.shape
        self.weights: Array | None = None
        self.x: Array | None = None  # those of the last call
        self.out: Array | None = None
        found, scale = library(), np.abs(weights).max(axis=1, initial=0) / MOST
        if found is None or weights.dtype != np.float32 or not np.isfinite(scale).all():
            self.weights = np.ascontiguousarray(weights)
            return
        self.words, self.scale = pack(weights, scale), scale / np.float32(UNIT)
        self.call = Call(*self.shape, self.words.ctypes.data, self.scale.ctypes.data)
        self.multiply, self.address = found.charrnn_matvec, ctypes.addressof(self.call)

    def dot(self, x: Array, out: Array) -> Array:
        """out (N) = weights @ x (K), both contiguous and of the weights' type; quickest with the arrays of the last call. ValueError."""
        if self.weights is not None:
            return np.dot(self.weights, x, out=out)
        if x is not self.x or out is not self.out:
            self._bind(x, out)
        self.multiply(self.address)
        return out

    def _bind(self, x: Array, out: Array) -> None:
        """Point at the arrays and hold them, so that they stay where they are."""
        for part, size in ((x, self.shape[1]), (out, self.shape[0])):
            if part.shape != (size,) or part.dtype != np.float32 or not part.flags.c_contiguous:
                raise ValueError(f"a product of {self.shape} takes contiguous float32, got {part.shape} {part.dtype}")
        if not out.flags.writeable:
            raise ValueError("a product needs an array that it may write")
        self.x, self.out = x, out
        self.call.x, self.call.y = x.ctypes.data, out.ctypes.data


def pack(weights: Array, scale: Array) -> NDArray[np.int32]:
    """weights (N, K) in units of scale (N), as _matvec.c reads them: words (panels, K, 3, 16), row 16 i + j of a panel in word i, j.

    The first three quarters are rounded to what the bytes of the fourth leave of them, as their words are read whole."""
    rows, columns = weights.shape
    panels = -(-rows // ROWS)
    room = np.empty(panels * columns * 48 + WORDS, np.int32)
    aligned = -room.ctypes.data % 64 // 4  # a vector that lies across two lines of the cache takes twice the time
    words = room[aligned : aligned + panels * columns * 48].reshape(panels, columns, 3, WORDS)
    units = np.zeros((ROWS, columns))
    for panel, first in zip(words, range(0, rows, ROWS)):
        part = slice(first, first + ROWS)
        here = len(weights[part])
        units[here:] = 0
        np.divide(weights[part], np.where(scale[part] > 0, scale[part], 1)[:, None], out=units[:here], dtype=np.float64)
        fourth = np.rint(units[3 * WORDS :]).astype(np.int32)
        for i in range(3):
            byte = fourth >> 8 * i & 0xFF
            whole = np.rint(units[i * WORDS : (i + 1) * WORDS] - byte / UNIT).astype(np.int32)
            panel[:, i] = (whole << 8 | byte).T
    return words


def unpack(words: NDArray[np.int32], scale: Array) -> Array:
    """The weights (N, K) that a product takes, in float64; scale (N) as for `pack`."""
    a, b, c = words.transpose(2, 0, 3, 1)  # each (panels, 16, K)
    fourth = c << 24 | (b << 16 & 0xFF0000) | (a << 8 & 0xFF00)
    units = np.concatenate([a, b, c, fourth], axis=1).reshape(-1, words.shape[1])[: len(scale)] / UNIT
    return units * scale.astype(np.float64)[:, None]
