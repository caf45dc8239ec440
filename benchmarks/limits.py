"""What the machine itself can do: the rate of a matrix product, the bandwidth of a copy, and of reading so many bytes again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.shapes import Shape
from charrnn.cells import GATES

ROW = 1024  # elements


def product(shape: Shape) -> tuple[Callable[[], object], float]:
    """torch.mm of a whole window, (T·B, H) by (H, G·H), on all threads and into memory that is there; and its operations."""
    n, H, width = shape.window * shape.rows, shape.hidden, GATES[shape.cell] * shape.hidden
    a, b, out = torch.randn(n, H), torch.randn(H, width), torch.empty(n, width)
    return lambda: torch.mm(a, b, out=out), 2.0 * n * H * width


def copying(size: int = 1 << 28) -> tuple[Callable[[], object], float]:
    """A copy of so many bytes on all threads; and the bytes that it reads and writes."""
    source, target = torch.ones(size // 4), torch.empty(size // 4)
    return lambda: target.copy_(source), 2.0 * size


def reading(size: int) -> tuple[Callable[[], object], float, str]:
    """The fastest of some ways to read so many bytes of float32, as a sampler reads its weights: again and again, so that they lie
    in whichever cache holds them. With the bytes, and the way's name."""
    rows = max(1, size // (4 * ROW))
    matrix, vector, out = torch.ones(rows, ROW), torch.ones(ROW), torch.empty(rows)
    numbers, other = matrix.numpy(), vector.numpy()
    ways: dict[str, Callable[[], object]] = {
        "torch.mv": lambda: torch.mv(matrix, vector, out=out), "torch.sum": matrix.sum, "numpy matvec": lambda: np.dot(numbers, other)}
    best = min(ways, key=lambda name: _seconds(ways[name]))
    return ways[best], 4.0 * rows * ROW, best


def _seconds(way: Callable[[], object]) -> float:
    """Of the fastest of some runs."""
    times: list[float] = []
    end = time.perf_counter() + 0.2
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        way()
        times.append(time.perf_counter() - began)
    return min(times)
