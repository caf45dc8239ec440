"""Words, whitespace and punctuation as tokens; rare words are spelled by characters."""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from charrnn.errors import CheckpointError, UsageError
from charrnn.tokens import (
    ESCAPE,
    START,
    Characters,
    Decoder,
    EscapeDecoder,
    Ids,
    Tokenizer,
    characters_of,
    check_characters,
    check_config,
    cut,
)

SMALL_TEXT = 1_000  # characters: below this every word is kept, above it those seen twice
COUNTED = 1_000_000  # distinct words counted at once; past it the rarest are forgotten, so that memory stays bounded
MOST = 1 << 18  # symbols
WRITTEN = 12 << 20  # bytes of them in the header of a run's file, which has 16 MiB for all that it says
HELD_BACK = 2  # a word may go on after "don" and after "don'": the last two tokens of a text may be others when it goes on
NEAR = 10_000  # characters at the end of a text in which something that is in no word is looked for

Count = Callable[[Iterable[str]], Iterator[Mapping[str, int]]]  # `counted`, or several processes that do the same


@functools.cache
def patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A word (letters, digits, _ and combining marks, with ' ’ and zero-width joiners inside), or any other character: for ASCII, for
    a text without combining marks, and for any text; the last pattern of all would do, the others are two to four times as fast.

    Lengths are bounded so that where a token ends depends on little text, whatever the text.
    """
    # Python's \w leaves combining marks out. They end before U+20000, but for the variation selectors.
    codes = itertools.chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0))
    marks = [code for code in codes if unicodedata.category(chr(code)).startswith("M")]
    runs = itertools.groupby(enumerate(marks), lambda place: place[1] - place[0])  # as ranges they match far faster
    spans = [[code for _, code in run] for _, run in runs]
    marked = "".join(f"{chr(span[0])}-{chr(span[-1])}" for span in spans)
    ascii_only, unmarked, full = (rf"{inner}{{1,100}}(?:['’\u200c\u200d]{inner}{{1,100}}){{0,8}}|."
                                  for inner in (r"\w", r"\w", rf"[\w{marked}]"))
    return re.compile(ascii_only, re.DOTALL | re.ASCII), re.compile(unmarked, re.DOTALL), re.compile(full, re.DOTALL)


@functools.cache
def any_mark() -> re.Pattern[str]:
    """A character that only the pattern for any text takes into a word."""
    return re.compile(patterns()[2].pattern.split("{")[0].replace(r"\w", ""))


@functools.cache
def between_words() -> re.Pattern[str]:
    """A character that is in no word, whatever stands beside it."""
    return re.compile(patterns()[2].pattern.split("{")[0].replace("[", "[^'’\u200c\u200d"))


def split(text: str) -> list[str]:
    """The tokens of a text; joined they are the text."""
    plain, unmarked, full = patterns()
    if text.isascii():
        return plain.findall(text)
    kinds = "".join(set(text))  # a search of the text itself would take longer than all else
    return (full if any_mark().search(kinds) else unmarked).findall(text)


def border(text: str) -> int:
    """A late place where a token of this text ends, however the text goes on."""
    end = 0
    for found in between_words().finditer(text, max(0, len(text) - NEAR)):
        end = found.end()
    return end or sum(map(len, split(text)[:-HELD_BACK]))


def counted(parts: Iterable[str]) -> Iterator[Mapping[str, int]]:
    """How often each token stands in each part of a text."""
    return map(Counter, map(split, parts))


def frequent_words(parts: Iterable[Mapping[str, int]], characters: str) -> list[str]:
    """The words of two of these characters or more that are worth a symbol, the most frequent first, then by code points; of a text whose
    parts end where tokens do, and were counted."""
    counts: Counter[str] = Counter()
    forgotten = 0
    for part in parts:
        counts.update(part)
        while len(counts) > COUNTED:
            forgotten += 1
            counts = Counter({word: count for word, count in counts.items() if count > forgotten})
    length = sum(len(word) * count for word, count in counts.items())
    least, known = 1 if length < SMALL_TEXT else 2, frozenset(characters)
    words = [(-count, word) for word, count in counts.items() if count >= least and len(word) > 1 and known.issuperset(word)]
    return [word for _, word in sorted(words)]


def fitting(characters: str, words: list[str]) -> list[str]:
    """As many of the words, from the first on, as a run's file can hold: JSON within JSON, and ASCII alone."""
    def size(value: object) -> int:
        return len(json.dumps(json.dumps(value)))

    if size([characters, *words]) <= WRITTEN:
        return words
    sizes = itertools.accumulate(size(word) - 1 for word in words)  # a comma instead of two quotes
    return words[: sum(1 for total in sizes if total <= WRITTEN - size(characters))]


class WordTokenizer(Tokenizer):
    """The sorted characters of the training text, then its most frequent words, then the escape."""

    level = "word"

    def __init__(self, characters: str, words: list[str]) -> None:
        self.characters, self.words = characters, words
        self.size = len(characters) + len(words) + 1
        self.escape = self.size - 1
        self._characters = Characters(characters, self.size)
        self.unknown_nats = self._characters.unknown_nats
        self._symbols = [*characters, *words]
        self._ids = {symbol: token for token, symbol in enumerate(self._symbols)}

    @classmethod
    def build(cls, pieces: Callable[[], Iterable[str]], vocab_size: int | None, default: int, count: Count) -> WordTokenizer:
        """At most `vocab_size` symbols; `default` yields to a text of many different characters. UsageError."""
        if vocab_size is not None and vocab_size > MOST:
            raise UsageError(f"a vocabulary of {vocab_size} is too large: {MOST} is the most at level word")
        characters = characters_of(pieces())
        least = len(characters) + 1
        if vocab_size is None:
            vocab_size = max(default, least + default // 2)
        if vocab_size < least:
            raise UsageError(f"a vocabulary of {vocab_size} has no room for the text's {len(characters)} different "
                             f"characters: {least} is the least at level word")
        return cls(characters, fitting(characters, frequent_words(count(cut(pieces(), border)), characters)[: vocab_size - least]))

    @classmethod
    def _restore(cls, config: dict[str, Any], payload: bytes) -> WordTokenizer:
        check_config(config, payload, {"characters": str, "words": list})
        characters, words = check_characters(config["characters"]), config["words"]
        if not all(type(word) is str and len(word) > 1 and word.split() == [word] for word in words):
            raise CheckpointError("the tokenizer is damaged: its words are not all words")
        if len(set(words)) != len(words) or not set().union(*words) <= set(characters):
            raise CheckpointError("the tokenizer is damaged: its words repeat, or hold characters that it has not")
        return cls(characters, words)

    def to_bytes(self) -> tuple[dict[str, Any], bytes]:
        return {"level": self.level, "characters": self.characters, "words": list(self.words)}, b""

    def border(self, text: str) -> int:
        return border(text)

    def encode(self, text: str) -> Ids:
        return self._encode(split(text))

    def _encode(self, tokens: list[str]) -> Ids:
        count = len(tokens)
        ids = np.fromiter(map(self._ids.get, tokens, itertools.repeat(-1, count)), np.int32, count)
        missing = np.flatnonzero(ids < 0)
        if not len(missing):
            return ids
        spelled = [tokens[place] for place in missing.tolist()]
        lengths = np.ones(count, np.int64)
        lengths[missing] = np.fromiter(map(len, spelled), np.int64, len(spelled))
        result = np.repeat(ids, lengths)
        result[result < 0] = self._characters.encode("".join(spelled))
        return result

    def decoder(self) -> Decoder:
        return EscapeDecoder(self, self._symbols)

    def symbol(self, token: int) -> str:
        return {self.size: START, self.size - 1: ESCAPE}.get(token) or self._symbols[token]
