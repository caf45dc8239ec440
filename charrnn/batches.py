"""The training part as windows: B rows walk through it side by side, each going on where its last window stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.corpus import Store


@dataclass(frozen=True)
class Window:
    """`inputs` and `targets` (T, B): each target is the token that follows its input. `fresh`: the rows start anew, from zero.
    `after` (T+A, B): the token that follows each target, and A more; of a model that reads both ways."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    fresh: bool
    after: NDArray[np.int64]


def fit(tokens: int, batch: int, window: int) -> tuple[int, int]:
    """The (B, T) nearest to what was asked for that a text of so many tokens fills at least once."""
    window = min(window, tokens)
    return min(batch, tokens // window), window


@dataclass(frozen=True)
class Batches:
    """Windows of `store`, numbered from 0 without end: the number is the whole of the position, so any of them can be read at any time.

    An epoch gives each row `length` tokens. With more than one row, each epoch starts at another place of the text (drawn from
    the seed and the epoch alone), so that what is left over at the end changes; the text is then read as a ring.

    `ahead`: how many tokens more than its targets' followers a window's `after` holds; at a row's end it holds none, but the start
    symbol in the last place.
    """

    store: Store
    start: int
    batch: int
    window: int
    seed: int = 0
    ahead: int = 0

    @property
    def length(self) -> int:
        """Tokens of one row in one epoch."""
        return self.store.count // self.batch

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.length // self.window)

    def __getitem__(self, step: int) -> Window:
        return self.window_of(step, range(self.batch))

    def window_of(self, step: int, rows: range) -> Window:
        """These rows of window `step`; windows of one epoch differ in length by at most one, so that none is a stump."""
        epoch, place = divmod(step, self.steps_per_epoch)
        begin, end = (self.length * k // self.steps_per_epoch for k in (place, place + 1))
        phase = int(np.random.default_rng([self.seed, epoch]).integers(self.store.count)) if self.batch > 1 else 0
        size, more = end - begin, self.ahead if end < self.length else 0
        tokens = np.empty((size + 2 + more, len(rows)), np.int64)
        for column, row in enumerate(rows):
            tokens[:, column] = self._ring(phase + row * self.length + begin - 1, len(tokens))
        if place == 0:
            tokens[0] = self.start
        if end == self.length:
            tokens[-1] = self.start
        return Window(tokens[:size], tokens[1 : size + 1], place == 0, tokens[2:])

    def _ring(self, begin: int, count: int) -> NDArray[Any]:
        begin %= self.store.count
        piece = self.store.read(begin, min(begin + count, self.store.count))
        while len(piece) < count:
            piece = np.concatenate([piece, self.store.read(0, min(count - len(piece), self.store.count))])
        return piece
