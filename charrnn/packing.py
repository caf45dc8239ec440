"""Weights as _step.c reads them: float32 in 24 bits each, less to read for a product, or the same numbers in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of floats
WORDS, ROWS = 16, 64  # 3 x 16 words of 32 bits hold a column of 64 weights: a panel
UNIT = 256.0  # of a word, a weight's unit
MOST = np.float32(2**23 - 2)  # units: what 24 bits hold, rounding included


def aligned(shape: tuple[int, ...], kind: type) -> Array:
    """Zeros that begin a line of the cache: a vector that lies across two lines takes twice the time."""
    size, one = math.prod(shape), np.dtype(kind).itemsize
    room: Array = np.empty(size + 64 // one, kind)  # for a large one NumPy asks for large pages, which np.zeros does not
    room.fill(0)
    first = -room.ctypes.data % 64 // one
    return room[first : first + size].reshape(shape)


def pack(weights: Array) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """weights (N, K) → words (panels, K, 3, 16), row 16 i + j of a panel in word i, j, and the scale (panels * 64) of a row's words.

    A weight is off by at most three quarters of a unit, its row's largest over 2^23 - 2: half by its rounding, a quarter by that of a
    word to float32. The first three quarters of a panel are rounded to what the bytes of the fourth leave of them, as their words are
    read whole. ValueError for weights that are not finite."""
    rows, columns = weights.shape
    panels = -(-rows // ROWS)
    scale = np.zeros(panels * ROWS, np.float32)
    scale[:rows] = np.abs(weights).max(axis=1, initial=0) / MOST
    if not np.isfinite(scale).all():
        raise ValueError("the weights are not finite")
    words = aligned((panels, columns, 3, WORDS), np.int32)
    units = np.zeros((ROWS, columns))
    for panel, first in zip(words, range(0, rows, ROWS)):
        part = slice(first, min(first + ROWS, rows))
        here = len(weights[part])
        units[here:] = 0
        np.divide(weights[part], np.where(scale[part] > 0, scale[part], 1)[:, None], out=units[:here], dtype=np.float64)
        fourth = np.rint(units[3 * WORDS :]).astype(np.int32)
        for i in range(3):
            byte = fourth >> 8 * i & 0xFF
            whole = np.rint(units[i * WORDS : (i + 1) * WORDS] - byte / UNIT).astype(np.int32)
            panel[:, i] = (whole << 8 | byte).T
    return words, np.float32(1 / UNIT) * scale


def unpack(words: NDArray[np.int32]) -> NDArray[np.float32]:
    """What a product makes of the words: units (panels, K, 64) in float32, to be multiplied by the scale of each row."""
    panels, columns = words.shape[:2]
    units = aligned((panels, columns, ROWS), np.float32)
    units[..., : 3 * WORDS] = words.reshape(panels, columns, 3 * WORDS)
    a, b, c = (words[:, :, i] for i in range(3))
    units[..., 3 * WORDS :] = c << 24 | (b << 16 & 0xFF0000) | (a << 8 & 0xFF00)
    return units
