"""A small sample of a text's passages, by which another text's overlap with it is noticed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.tokens import code_points

LENGTH = 48  # characters of a passage
KEPT = 4096  # hashes of a fingerprint, at most
ALL = 2**64
BASE = 0x9E3779B97F4A7C15  # b: any odd number without a pattern
BLOCK = 1 << 15  # characters hashed at once: what fits the cache

Hashes = NDArray[np.uint64]


def mixed(h: Hashes) -> Hashes:
    """Each bit of the result depends on each of the hash: the last steps of SplitMix64 (Steele et al. 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def passages(codes: NDArray[np.uint32]) -> Hashes:
    """A hash of each LENGTH code points that follow each other: Σ_j c_j b^(LENGTH−1−j) mod 2^64, mixed.

    Sums of 2, 4, 8, 16, 32 characters are made of two halves, and 48 of 32 and 16.
    """
    if len(codes) < LENGTH:
        return np.empty(0, np.uint64)
    h = sixteen = mixed(codes.astype(np.uint64) + np.uint64(1))
    for length in (1, 2, 4, 8, 16):
        sixteen = h
        h = h[:-length] * np.uint64(pow(BASE, length, ALL)) + h[length:]
    return mixed(h[:-16] * np.uint64(pow(BASE, 16, ALL)) + sixteen[32:])


def hashes_of(pieces: Iterable[str]) -> Iterator[Hashes]:
    """The hashes of all passages of a text that comes in pieces."""
    tail = np.empty(0, np.uint32)
    for piece in pieces:
        codes = np.concatenate([tail, code_points(piece)])
        for begin in range(0, len(codes) - LENGTH + 1, BLOCK):
            yield passages(codes[begin : begin + BLOCK + LENGTH - 1])
        tail = codes[-(LENGTH - 1) :]


@dataclass(frozen=True)
class Fingerprint:
    """The distinct `hashes`, sorted, that are `below` a threshold, which is such that at most KEPT are."""

    hashes: Hashes
    below: int

    @staticmethod
    def of(pieces: Iterable[str]) -> Fingerprint:
        sketch, before = Sketch(), ""
        for piece in pieces:
            sketch.read(before, piece)
            before = last(before, piece)
        return sketch.fingerprint()

    def overlap(self, pieces: Iterable[str]) -> float:
        """The share of another text's passages below the threshold that stand in this one; 0.0 where there are none."""
        if not len(self.hashes):
            return 0.0
        sampled = found = 0
        most = np.uint64(min(self.below, ALL) - 1)
        for hashes in hashes_of(pieces):
            hashes = hashes[hashes <= most]
            places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
            sampled += len(hashes)
            found += int(np.count_nonzero(self.hashes[places] == hashes))
        return found / sampled if sampled else 0.0


def last(before: str, piece: str) -> str:
    """What a sketch needs of a text that has been read for the piece that follows."""
    return (before + piece[-(LENGTH - 1) :])[-(LENGTH - 1) :]


class Sketch:
    """A fingerprint in the making: the KEPT smallest hashes, so that a text that repeats itself has as many."""

    def __init__(self) -> None:
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._below = ALL
        self._waiting: list[Hashes] = []

    def read(self, before: str, piece: str) -> Hashes:
        """Take in a piece, of which `before` are the characters (LENGTH−1, where there are as many) that it follows. Those of its hashes
        that may be among the smallest: all that another sketch needs of it."""
        return np.concatenate([np.empty(0, np.uint64), *map(self.add, hashes_of([before + piece]))])

    def add(self, hashes: Hashes) -> Hashes:
        """Take in hashes; those of them that may be among the smallest."""
        hashes = hashes[hashes <= np.uint64(self._below - 1)]
        self._waiting.append(hashes)
        if sum(map(len, self._waiting)) > KEPT:
            self._merge()
        return hashes

    def _merge(self) -> None:
        smallest = np.unique(np.concatenate([self._hashes, *self._waiting]))
        self._waiting = []
        if len(smallest) > KEPT:
            self._below = int(smallest[KEPT])
        self._hashes = smallest[:KEPT]

    def fingerprint(self) -> Fingerprint:
        self._merge()
        return Fingerprint(self._hashes, self._below)
