"""Memory that is kept from one training step to the next, so that its pages are faulted in once."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class Pool:
    """Flat buffers, lent and given back. As many are kept as were ever out at once; safe to call from threads."""

    def __init__(self) -> None:
        self._free: dict[torch.dtype, list[Tensor]] = {}
        self._lock = threading.Lock()

    def take(self, dtype: torch.dtype, size: int) -> Tensor:
        """An uninitialised flat tensor of at least `size` elements: the smallest that is large enough."""
        with self._lock:
            free = self._free.setdefault(dtype, [])
            fitting = [n for n, buffer in enumerate(free) if buffer.numel() >= size]
            if fitting:
                return free.pop(min(fitting, key=lambda n: free[n].numel()))
            if free:  # all are too small: the new one replaces the largest of them
                free.pop(max(range(len(free)), key=lambda n: free[n].numel()))
        return torch.empty(size, dtype=dtype)

    def give(self, buffer: Tensor) -> None:
        """Back into the pool; the caller keeps no view of it."""
        with self._lock:
            self._free[buffer.dtype].append(buffer)

    def clear(self) -> None:
        """Lets go of all that is not lent."""
        with self._lock:
            self._free.clear()


POOL = Pool()


class Lease:
    """Tensors out of POOL; they go back on `end`, or when nobody holds the lease any more (a graph freed unused)."""

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def tensor(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """An uninitialised tensor of this shape, valid until the lease ends."""
        size = torch.Size(shape).numel()
        flat = POOL.take(dtype, size)
        self._held.append(flat)
        return flat[:size].view(shape)

    def end(self) -> None:
        """Gives all of it back; a second call does nothing."""
        while self._held:
            POOL.give(self._held.pop())

    def __del__(self) -> None:
        self.end()
