"""A text as tokens: the part to train on and the part held out, written to disk once and recognised the next time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.encoding import Counting, Encoder, spread
from charrnn.errors import CharRNNError, StorageError, UsageError
from charrnn.fingerprint import Fingerprint, Sketch, last
from charrnn.store import Shelf, Store, Writer, cache_folder, opened
from charrnn.text import Text
from charrnn.tokenizer import LEVELS, Tokenizer, build
from charrnn.tokens import RARE, canonical, cut

FORMAT = 2
SMALL = 1_000  # characters: a shorter text is trained on whole

__all__ = ["Corpus", "Fingerprint", "Part", "Store", "prepare", "tokenized"]


@dataclass(frozen=True)
class Part:
    """A stretch of the text; `unknown` of its characters have no symbol and stand in the store as the escape."""

    store: Store
    tokens: int
    characters: int
    bytes: int
    unknown: int


@dataclass(frozen=True)
class Corpus:
    """A text made ready. `unigram` (V): how often each token stands in the training part.

    Where nothing is `held_out` the validation part is the training part.
    """

    tokenizer: Tokenizer
    training: Part
    validation: Part
    held_out: bool
    digest: str
    name: str
    characters: int
    notes: tuple[str, ...]
    fingerprint: Fingerprint
    unigram: NDArray[np.int64]

    @property
    def unigram_nats_per_character(self) -> float:
        """What the training part costs where each token is guessed by how common it is in it."""
        seen = self.unigram[self.unigram > 0]
        return float((seen * np.log(seen.sum() / seen)).sum()) / self.training.characters + self.unknown_nats_per_character

    @property
    def unknown_nats_per_character(self) -> float:
        """What the training part's characters without a symbol of their own cost more than the escape."""
        return self.training.unknown * self.tokenizer.unknown_nats / self.training.characters


def prepare(text: Text, *, level: str, vocab_size: int | None = None, valid: float = 0.1,
            tokenizer: Tokenizer | None = None, cache: Path | EllipsisType | None = ...) -> Corpus:
    """The last `valid` of the characters held out, the tokenizer learnt from the rest unless one is given.

    The tokens are kept in `cache` (by default a folder of the user's, see `cache_folder`; None: nowhere) or, where that
    cannot be written, in a file without a name. Raises UsageError, DataError, StorageError.
    """
    if level not in LEVELS:
        raise UsageError(f"{level!r} is no level of tokens: choose from {', '.join(LEVELS)}")
    if tokenizer and tokenizer.level != level:
        raise UsageError(f"a tokenizer of level {tokenizer.level} cannot be used at level {level}")
    if not 0 <= valid < 1:
        raise UsageError(f"the share held out must be at least 0 and below 1, not {valid}")
    characters = text.characters
    split = characters if characters < SMALL else max(1, int(characters * (1 - valid)))
    notes = list(text.notes)
    if split == characters:
        why = f"{characters:,} characters are too few to hold some out" if characters < SMALL else "nothing is held out"
        notes.append(f"{why}: the model is validated on what it is trained on")
    key = {"format": FORMAT, "text": text.digest, "characters": characters, "bytes": text.bytes,
           "encoding": text.encoding, "errors": text.errors, "level": level, "vocab_size": vocab_size, "split": split,
           "tokenizer": tokenizer.digest if tokenizer else None}
    folder = cache_folder() if cache is ... else cache
    path = folder / f"{text.name}-{level}-{hashlib.sha256(canonical(key)).hexdigest()[:24]}.tokens" if folder else None
    if path and (shelf := opened(path)):
        try:
            return restored(shelf, key, text, tuple(notes))
        except (CharRNNError, KeyError, TypeError, ValueError):
            pass  # another version's or another text's: it is written anew
    if tokenizer is None:
        with spread(Counting(), level, text.bytes) as count:
            tokenizer = build(level, lambda: text.pieces(stop=split), vocab_size, split, count)
    return restored(stored(text, split, tokenizer, key, path), key, text, tuple(notes))


def tokenized(text: Text, tokenizer: Tokenizer) -> Corpus:
    """A text as these tokens, none held out, which are gone with the corpus: their file has no name. DataError, StorageError."""
    return restored(stored(text, text.characters, tokenizer, {}, cache_folder(), named=False), {}, text, ())


def stored(text: Text, split: int, tokenizer: Tokenizer, key: dict[str, Any], path: Path | None, *, named: bool = True) -> Shelf:
    """Encode both parts into a file (see Writer) or, where that cannot be written, into one among temporary files; raises StorageError."""
    with contextlib.suppress(OSError):
        return write(text, split, tokenizer, key, Writer(path, named=named))
    try:
        return write(text, split, tokenizer, key, Writer(None))
    except OSError as error:
        raise StorageError(f"the tokens of {text.name} cannot be written in {tempfile.gettempdir()}: {error.strerror}: free some space, "
                           "or name another folder in TMPDIR or CHARRNN_CACHE") from None


def write(text: Text, split: int, tokenizer: Tokenizer, key: dict[str, Any], file: Writer) -> Shelf:
    """Encode both parts into a file; raises OSError."""
    sketch, unigram = Sketch(), np.zeros(tokenizer.size, np.int64)
    config, payload = tokenizer.to_bytes()
    parts: list[dict[str, int]] = []
    with file, spread(Encoder(tokenizer), tokenizer.level, text.bytes) as encode:
        training, validation = divided(text.pieces(), split)
        for pieces, characters in ((training, split), (validation, text.characters - split)):
            tokens = unknown = size = 0
            for block in encode(following(cut(pieces, tokenizer.border), not parts)):
                file.write(block.data)
                tokens, unknown, size = tokens + block.tokens, unknown + block.unknown, size + block.bytes
                if not parts:
                    unigram += block.counts
                    sketch.add(block.hashes)
            parts.append({"tokens": tokens, "characters": characters, "bytes": size, "unknown": unknown})
        fingerprint = sketch.fingerprint()
        for data in (payload, fingerprint.hashes.tobytes(), unigram.tobytes()):
            file.write(data)
        return file.finish({"key": key, "dtype": str(np.min_scalar_type(tokenizer.size - 1)), "parts": parts, "tokenizer": config,
                            "payload": len(payload), "hashes": len(fingerprint.hashes), "below": fingerprint.below})


def divided(pieces: Iterator[str], at: int) -> tuple[Iterator[str], Iterator[str]]:
    """The first `at` characters of a text, and the rest, which is to be read after them: the text is gone through once."""
    ahead: list[str] = []

    def first() -> Iterator[str]:
        left = at
        for piece in pieces:
            yield piece[:left]
            if left <= len(piece):
                ahead.append(piece[left:])
                return
            left -= len(piece)

    return first(), itertools.chain(ahead, pieces)


def following(pieces: Iterable[str], sketched: bool) -> Iterator[tuple[str | None, str]]:
    """The pieces of a text with what a sketch needs of what stands before each."""
    before = ""
    for piece in pieces:
        yield before if sketched else None, piece
        before = last(before, piece)


def restored(shelf: Shelf, key: dict[str, Any], text: Text, notes: tuple[str, ...]) -> Corpus:
    """The corpus that `write` left on a shelf; KeyError, TypeError, ValueError or CharRNNError if it is another."""
    about = shelf.about
    if about["key"] != key:
        raise ValueError("the tokens of another text")
    dtype, place, parts = np.dtype(about["dtype"]), 0, []
    for part in about["parts"]:
        store = Store(shelf, place, part["tokens"], dtype)
        parts.append(Part(store, store.count, int(part["characters"]), int(part["bytes"]), int(part["unknown"])))
        place += store.count * dtype.itemsize
    training, validation = parts
    payload = shelf.read(place, about["payload"])
    tokenizer = Tokenizer.from_bytes(about["tokenizer"], payload)
    place += len(payload)
    hashes = np.frombuffer(shelf.read(place, 8 * about["hashes"]), np.uint64)
    unigram = np.frombuffer(shelf.read(place + hashes.nbytes, 8 * tokenizer.size), np.int64)
    held_out = validation.tokens > 0
    if training.unknown:
        notes += (f"{training.unknown:,} of the characters to learn from are of kinds that come less than once in {RARE:,}: these kinds "
                  "share a symbol, which is never written",)
    return Corpus(tokenizer, training, validation if held_out else training, held_out, text.digest, text.name,
                  text.characters, notes, Fingerprint(hashes, int(about["below"])), unigram)
