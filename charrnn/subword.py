"""Parts of words that SentencePiece learns from the text, over bytes for all that is rare.

SentencePiece writes a space as U+2581. So that every text comes back exactly, a U+2581 of the text itself goes around
it as three bytes, and decoding is by the bytes of each piece.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from charrnn.errors import CheckpointError, DataError, UsageError
from charrnn.pieces import BYTE, FIRST, MOST, SPACE, model_of, pieces_of
from charrnn.tokens import (
    CODE_POINTS,
    START,
    ByteDecoder,
    Decoder,
    Ids,
    Tokenizer,
    check_config,
    code_points,
    utf8,
)
from charrnn.unigram import learn_aside

META = len(FIRST)  # <unk>, the line end and 256 bytes
LEAST = META + 2
SAMPLE = 4_000_000  # characters that SentencePiece learns from
COVERAGE = 0.9995  # share of the text whose characters are pieces of their own; the rest are bytes
# What normalisation, a dummy prefix or a lack of bytes would change.
PROBE = f"  \uff21e\u0301 {SPACE}\u1e9b\ufb01  \U0010ffff\r\n\0\t "
LONGEST = 1_000  # characters given to SentencePiece at once: it skips longer lines in training, and adds up in float32

# A line or, of a longer one, as many words as fit; U+2581 apart. Whether a unit ends depends on LONGEST + 1 characters.
UNITS = re.compile(rf"\n+|{SPACE}+|[^\n{SPACE}]{{1,{LONGEST}}}(?![^ \n{SPACE}])|[^\n{SPACE}]{{1,{LONGEST}}}")


def sample(pieces: Iterable[str], total: int) -> list[str]:
    """At most about SAMPLE characters of a text of `total`, the same share of each piece."""
    if not total:
        raise DataError("the text is empty: there is nothing to learn")
    share = min(1.0, SAMPLE / total)
    return [piece[: math.ceil(len(piece) * share)] for piece in pieces]


def common_characters(pieces: Iterable[str], most: int) -> str:
    """The space and the most frequent characters that SentencePiece can learn: COVERAGE of the text, at most `most`."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for piece in pieces:
        counts += np.bincount(code_points(piece), minlength=CODE_POINTS)
    counts[[0, ord("\n"), 0x2581, 0x2585]] = 0  # lines with NUL or U+2585 would be skipped
    order = np.argsort(-counts, kind="stable")
    order = order[: np.searchsorted(np.cumsum(counts[order]), COVERAGE * counts.sum()) + 1]
    order = order[(counts[order] > 0) & (order != ord(" "))]
    return " " + "".join(map(chr, order[: most - 1]))


class SubwordTokenizer(Tokenizer):
    """The pieces of a SentencePiece model, as it numbers them."""

    level = "subword"

    def __init__(self, model: bytes) -> None:
        """Raises CheckpointError for a model that isn't one of charrnn's kind."""
        import sentencepiece

        pieces = pieces_of(model)
        self.model, self.size = model_of(pieces), len(pieces)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise CheckpointError("the tokenizer is damaged: SentencePiece cannot read its model") from error
        self._byte_ids = [token for token, piece in enumerate(pieces) if piece.kind == BYTE]
        self._names = [piece.text if piece.kind == BYTE else piece.text.replace(SPACE, " ") for piece in pieces]
        self._chunks = list(map(utf8, self._names))
        self._chunks[0] = utf8("\ufffd")
        self._chunks[META - 256 : META] = [bytes([value]) for value in range(256)]
        if self.decode(self.encode(PROBE)) != PROBE:
            raise CheckpointError("the tokenizer is damaged: its SentencePiece model changes the text")

    @classmethod
    def build(cls, pieces: Callable[[], Iterable[str]], vocab_size: int, total: int) -> SubwordTokenizer:
        """Of a text of `total` characters about `vocab_size` symbols, fewer where the text does not have as many parts."""
        if vocab_size < LEAST:
            raise UsageError(f"a vocabulary of {vocab_size} is too small: {LEAST} is the least at level subword")
        if vocab_size > MOST:
            raise UsageError(f"a vocabulary of {vocab_size} is too large: {MOST} is the most at level subword")
        texts = sample(pieces(), total)
        common = common_characters(texts, max(1, (vocab_size - META) // 2))
        known = re.compile(f"[{re.escape(common)}]{{1,{LONGEST}}}")
        sentences = (part for text in texts for line in UNITS.findall(text) for part in known.findall(line))
        # The characters by themselves too: of one line that only repeats itself SentencePiece would write no model.
        return cls(learn_aside(itertools.chain(sentences, common), vocab_size))

    @classmethod
    def _restore(cls, config: dict[str, Any], payload: bytes) -> SubwordTokenizer:
        check_config(config, payload, {"sha256": str}, payload_allowed=True)
        if hashlib.sha256(payload).hexdigest() != config["sha256"]:
            raise CheckpointError("the tokenizer is damaged: its SentencePiece model has another digest")
        return cls(payload)

    def to_bytes(self) -> tuple[dict[str, Any], bytes]:
        return {"level": self.level, "sha256": hashlib.sha256(self.model).hexdigest()}, self.model

    def encode(self, text: str) -> Ids:
        utf8(text)  # surrogates would become question marks
        return self._encode(UNITS.findall(text))

    def strangers(self, text: str) -> int:
        ids = self.encode(text)
        value = ids - self._byte_ids[0]
        return int(((value >= 0) & (value < 256) & (value & 0xC0 != 0x80)).sum())  # a character's first byte

    def border(self, text: str) -> int:
        end = max(text.rfind("\n"), text.rfind(SPACE)) + 1  # both are symbols of their own, one by one
        return end or len(text) - len(UNITS.findall(text)[-1]) if text else 0

    def _encode(self, units: list[str]) -> Ids:
        lists: list[list[int]] = self._processor.encode(units, num_threads=1)
        for place, unit in enumerate(units):
            if unit[0] == SPACE:
                lists[place] = [self._byte_ids[byte] for byte in unit.encode()]
        return np.fromiter(itertools.chain.from_iterable(lists), np.int32)

    def decoder(self) -> Decoder:
        return ByteDecoder(self._chunks)

    def symbol(self, token: int) -> str:
        return START if token == self.size else self._names[token]
