"""Sums of nats over counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROWS, CHUNK = 64, 256  # a long text is scored in so many rows side by side, and so many tokens of each at once


def perplexity(nats_per_token: float) -> float:
    """exp(nats / tokens); infinite where that overflows."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


@dataclass(frozen=True)
class Score:
    """What a model paid for a text: `nats` in all, over so many tokens, code points and UTF-8 bytes."""

    nats: float
    tokens: int
    characters: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / max(self.tokens, 1)

    @property
    def nats_per_character(self) -> float:
        return self.nats / max(self.characters, 1)

    @property
    def perplexity(self) -> float:
        return perplexity(self.nats_per_token)

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(self.bytes, 1)
