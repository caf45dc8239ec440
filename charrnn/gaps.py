"""A text with gaps, and which tokens may stand in one: a gap's length is in characters, whatever a token is."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import UsageError
from charrnn.tokenizer import Tokenizer

LONGEST = 64  # characters of a gap


@dataclass(frozen=True)
class Gap:
    """From `low` to `high` characters that are not known. Marks that stand on a letter count nothing."""

    low: int
    high: int


def lengths(length: str) -> Gap:
    """`5` or `3-12`, in characters. UsageError."""
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", length.strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < low <= high <= LONGEST:
        raise UsageError(f"--length {length}: not the length of a gap; write it as 5 or 3-12, from 1 to {LONGEST} characters")
    return Gap(low, high)


def check(mark: str) -> None:
    """UsageError for what cannot mark a gap."""
    if len(mark) != 1:
        raise UsageError(f"--gap {mark!r}: the mark of a gap is one character, such as _ or ~")


def parts(text: str, mark: str = "_", length: str | None = None) -> list[str | Gap]:
    """Text and gaps in turn, a text first and last, which may be empty; each run of marks is a gap, as long as it is or of `length`.
    UsageError where there is none."""
    check(mark)
    found: list[str | Gap] = []
    for number, part in enumerate(re.split(f"({re.escape(mark)}+)", text)):
        found.append(part if number % 2 == 0 else lengths(length or str(len(part))))
    if len(found) == 1:
        raise UsageError(f"there is no gap in the text: put one {mark} for each missing character, as in 'the ____ machine'")
    return found


class Alphabet:
    """What each token is worth in a gap. (V) arrays:

    begins  characters that it begins: 0 for a mark on the letter before it, and for a byte that goes on with a character
    opens   bytes that must follow before its character is whole
    inner   whether it is such a byte itself
    usable  whether it may stand in a gap: neither the escape nor bytes that are no UTF-8
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        size, decoder = tokenizer.size, tokenizer.decoder()
        chunks = getattr(decoder, "chunks", None) or [symbol.encode() for symbol in decoder.symbols]  # type: ignore[attr-defined]
        self.begins, self.opens = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.inner, self.usable = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        for token, chunk in enumerate(chunks[:size]):
            try:
                text = chunk.decode()
                self.begins[token] = sum(not unicodedata.category(character).startswith("M") for character in text)
                self.usable[token] = text != "\ufffd"
            except UnicodeDecodeError:
                lead = chunk[0]
                self.inner[token] = lead < 0xC0
                self.usable[token] = len(chunk) == 1 and lead < 0xF5
                self.opens[token] = 0 if lead < 0xC0 else 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
                self.begins[token] = lead >= 0xC0
        if tokenizer.escape is not None:
            self.usable[tokenizer.escape] = False

    def allowed(self, room: NDArray[np.int64], open_: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(B, V): what may come next where `room` (B) characters are left and `open_` (B) bytes are owed."""
        going_on = self.inner[None, :]
        fresh = ~self.inner & (self.begins[None, :] <= room[:, None])
        return self.usable & np.where(open_[:, None] > 0, going_on, fresh)

    def after(self, tokens: NDArray[np.int64], room: NDArray[np.int64],
              open_: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Room and bytes owed (B) after a token (B) in each row."""
        return room - self.begins[tokens], np.where(open_ > 0, open_ - 1, self.opens[tokens])
