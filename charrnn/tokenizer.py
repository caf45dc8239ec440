"""Text to ids and back at four levels: characters, bytes, words, parts of words. Everyone imports them from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from charrnn.errors import UsageError
from charrnn.subword import SubwordTokenizer
from charrnn.tokens import ByteTokenizer, CharTokenizer, Decoder, Ids, Tokenizer
from charrnn.word import Count, WordTokenizer, counted

LEVELS = ("char", "byte", "word", "subword")

__all__ = ["LEVELS", "Decoder", "Ids", "Tokenizer", "build", "default_vocabulary"]


def default_vocabulary(level: str, characters: int) -> int | None:
    """How many symbols suit a training text of so many characters; None where the level leaves no choice.

    Few: each makes every step slower, and its row of weights has to be learnt from the times that it comes.
    """
    if level == "word":
        return min(max(characters // 500, 1_000), 20_000)
    if level == "subword":
        return min(max(characters // 1_000, 512), 8_000)
    return None


def build(level: str, pieces: Callable[[], Iterable[str]], vocab_size: int | None = None, characters: int | None = None,
          count: Count = counted) -> Tokenizer:
    """The tokenizer of a training text, of which `pieces` starts a new pass; its `characters` are counted where they are not given, its
    words by `count`. Raises UsageError, DataError."""
    if level not in LEVELS:
        raise UsageError(f"{level!r} is no level of tokens: choose from {', '.join(LEVELS)}")
    if level in ("char", "byte"):
        if vocab_size is not None:
            raise UsageError(f"a vocabulary size goes with the levels word and subword, not with {level}: leave it out")
        return CharTokenizer.build(pieces()) if level == "char" else ByteTokenizer()
    if level == "word" and vocab_size is not None:
        return WordTokenizer.build(pieces, vocab_size, 0, count)
    characters = sum(map(len, pieces())) if characters is None else characters
    default = default_vocabulary(level, characters) or 0
    if level == "word":
        return WordTokenizer.build(pieces, None, default, count)
    return SubwordTokenizer.build(pieces, default if vocab_size is None else vocab_size, characters)
