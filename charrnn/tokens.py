"""What a tokenizer is, and the two levels that need no learning of words: characters and bytes."""

from __future__ import annotations

import abc
import codecs
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CheckpointError, DataError

Ids = NDArray[np.int32]

CODE_POINTS = 0x110000
SCALARS = CODE_POINTS - 0x800  # code points less the surrogates: what a character can be
RARE = 1_000_000  # characters, of which one that has a symbol comes at least once; a shorter text has a symbol for all of its own
ESCAPE = "<escape>"
START = "<start>"
REPLACEMENT = "\ufffd"  # what a symbol that stands for no character is written as


class Decoder(Protocol):
    """Ids in, one by one; text out as soon as a character is whole."""

    def feed(self, token: int) -> str: ...

    def flush(self) -> str: ...


class Tokenizer(abc.ABC):
    """Text to ids and back: decode(encode(text)) == text for every text of Unicode characters.

    Ids 0..size−1 are what a model predicts; `start` (== size) opens a text and is never predicted. Where there is an
    `escape` (== size − 1), a character c that has no symbol is encoded as size + 1 + c, which keeps the text exact; a
    model sees `model_ids`, in which all of those are the escape.
    """

    level: ClassVar[str]
    kinds: ClassVar[dict[str, type[Tokenizer]]] = {}

    size: int
    escape: int | None = None
    unknown_nats: float = 0.0

    def __init_subclass__(cls) -> None:
        Tokenizer.kinds[cls.level] = cls

    @property
    def start(self) -> int:
        return self.size

    @abc.abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, code points without a symbol as size + 1 + code point."""

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """The text of ids; the escape and byte sequences that are not UTF-8 become U+FFFD, start becomes nothing."""
        decoder = self.decoder()
        return "".join(map(decoder.feed, np.asarray(ids, np.int64).tolist())) + decoder.flush()

    @abc.abstractmethod
    def decoder(self) -> Decoder:
        """A decoder that is fed one id at a time; its pieces joined are what `decode` gives for the whole."""

    @abc.abstractmethod
    def symbol(self, token: int) -> str:
        """A name to show for an id of 0..size; control characters in it are not made visible."""

    @abc.abstractmethod
    def to_bytes(self) -> tuple[dict[str, Any], bytes]:
        """All there is to know, for `from_bytes`: a configuration for JSON, and bytes."""

    @classmethod
    @abc.abstractmethod
    def _restore(cls, config: dict[str, Any], payload: bytes) -> Tokenizer:
        """The tokenizer of a configuration whose level was checked; raises CheckpointError."""

    @staticmethod
    def from_bytes(config: object, payload: bytes) -> Tokenizer:
        """The inverse of `to_bytes`, for input that may be damaged or hostile; raises CheckpointError."""
        level = config.get("level") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(level, str) or level not in Tokenizer.kinds:
            raise CheckpointError(f"the tokenizer is damaged: its level is {level!r}")
        return Tokenizer.kinds[level]._restore(config, payload)

    @property
    def digest(self) -> str:
        """SHA-256 over the configuration as canonical JSON and the bytes, in hexadecimal."""
        config, payload = self.to_bytes()
        return hashlib.sha256(canonical(config) + payload).hexdigest()

    def model_ids(self, ids: Ids) -> Ids:
        """The ids as a model knows them: every one above `start` becomes the escape."""
        return ids if self.escape is None else np.where(ids > self.size, np.int32(self.escape), ids)

    def unknown(self, text: str) -> list[str]:
        """The distinct characters that have no symbol, in the order of their appearance."""
        if self.escape is None:
            return []
        ids = self.encode(text)
        codes, first = np.unique(ids[ids > self.size], return_index=True)
        return [chr(code) for code in codes[np.argsort(first)] - (self.size + 1)]

    def strangers(self, text: str) -> int:
        """How many of its characters are written without a symbol of their own, where the vocabulary was learnt: by it a text in another
        Unicode form is known."""
        return int((self.encode(text) > self.size).sum())

    def border(self, text: str) -> int:
        """A late place where a text may be cut, so that its parts, encoded each by itself, are the text encoded however it goes on; 0 where
        none is found."""
        return len(text)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """The ids of a text that comes in pieces: joined, exactly those of the whole."""
        return map(self.encode, cut(pieces, self.border))


def cut(pieces: Iterable[str], border: Callable[[str], int]) -> Iterator[str]:
    """A text that comes in pieces, cut at borders (see Tokenizer.border) instead."""
    rest = ""
    for piece in pieces:
        text = rest + piece
        end = border(text)
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest


def canonical(value: Any) -> bytes:
    """The one way in which we write a value as JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def check_config(config: dict[str, Any], payload: bytes, types: dict[str, type], *,
                 payload_allowed: bool = False) -> None:
    """Raises CheckpointError unless `config` has exactly "level" and the names and types given."""
    wrong = {"level", *types} ^ set(config)
    wrong |= {name for name, kind in types.items() if type(config.get(name)) is not kind}
    if wrong:
        raise CheckpointError(f"the tokenizer is damaged: wrong fields {', '.join(sorted(map(repr, wrong)))}")
    if payload and not payload_allowed:
        raise CheckpointError("the tokenizer is damaged: it has bytes that its level does not use")


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a text; raises DataError for surrogates, which are no characters."""
    try:
        return np.frombuffer(text.encode("utf-32-le"), np.uint32)
    except UnicodeEncodeError as error:
        raise DataError(f"character {error.start + 1} of the text is half of a surrogate pair "
                        f"(U+{ord(text[error.start]):04X}), not a character: was it valid UTF-8?") from None


def utf8(text: str) -> bytes:
    """The text as UTF-8; raises DataError for surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return code_points(text).tobytes()  # raises, and says where


def characters_of(pieces: Iterable[str]) -> str:
    """The distinct characters of a text, sorted, but for those that come less than once in RARE; raises DataError for an empty one.

    Large texts hold thousands of characters a few times each: nothing is learnt of them, and each would make every step slower.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    for piece in pieces:
        found = np.bincount(code_points(piece))
        counts[: len(found)] += found
    if not counts.any():
        raise DataError("the text is empty: there is nothing to learn")
    return "".join(map(chr, np.flatnonzero(counts >= max(1, counts.sum() // RARE))))


def check_characters(characters: str) -> str:
    """The same string; raises CheckpointError unless it holds distinct characters, sorted, and at least one."""
    codes = np.fromiter(map(ord, characters), np.int64, len(characters))
    if not len(codes) or (np.diff(codes) <= 0).any() or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise CheckpointError("the tokenizer is damaged: its characters are not a sorted set")
    return characters


class Characters:
    """A look-up table from code points to ids 0..len−1, and to `size` + 1 + code point for all others."""

    def __init__(self, characters: str, size: int) -> None:
        codes = code_points(characters)
        self.table = np.arange(size + 1, size + 1 + CODE_POINTS, dtype=np.int32)
        self.table[codes] = np.arange(len(codes), dtype=np.int32)
        self.unknown_nats = math.log(SCALARS - len(codes)) if len(codes) < SCALARS else 0.0

    def encode(self, text: str) -> Ids:
        return self.table[code_points(text)]


class EscapeDecoder:
    """Streaming for levels at which each id is whole characters."""

    def __init__(self, tokenizer: Tokenizer, symbols: Sequence[str]) -> None:
        self.tokenizer, self.symbols = tokenizer, symbols

    def feed(self, token: int) -> str:
        size = self.tokenizer.size
        if 0 <= token < size - 1:
            return self.symbols[token]
        if size < token <= size + CODE_POINTS and not 0xD800 <= token - size - 1 < 0xE000:
            return chr(token - size - 1)
        if token in (size, size - 1):
            return REPLACEMENT if token < size else ""
        raise ValueError(f"{token} is no id of this tokenizer")

    def flush(self) -> str:
        return ""


class ByteDecoder:
    """Streaming for levels at which an id is some bytes of UTF-8."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        if not 0 <= token <= len(self.chunks):
            raise ValueError(f"{token} is no id of this tokenizer")
        return self.utf8.decode(self.chunks[token]) if token < len(self.chunks) else ""

    def flush(self) -> str:
        return self.utf8.decode(b"", final=True)


class CharTokenizer(Tokenizer):
    """One id a code point: the sorted characters of the training text, then the escape."""

    level = "char"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.size = len(characters) + 1
        self.escape = len(characters)
        self._lookup = Characters(characters, self.size)
        self.unknown_nats = self._lookup.unknown_nats

    @classmethod
    def build(cls, pieces: Iterable[str]) -> CharTokenizer:
        return cls(characters_of(pieces))

    @classmethod
    def _restore(cls, config: dict[str, Any], payload: bytes) -> CharTokenizer:
        check_config(config, payload, {"characters": str})
        return cls(check_characters(config["characters"]))

    def to_bytes(self) -> tuple[dict[str, Any], bytes]:
        return {"level": self.level, "characters": self.characters}, b""

    def encode(self, text: str) -> Ids:
        return self._lookup.encode(text)

    def decode(self, ids: Iterable[int] | Ids) -> str:
        return "".join(map(self.decoder().feed, np.asarray(ids, np.int64).tolist()))

    def decoder(self) -> Decoder:
        return EscapeDecoder(self, self.characters)

    def symbol(self, token: int) -> str:
        return {self.size: START, self.size - 1: ESCAPE}.get(token) or self.characters[token]


class ByteTokenizer(Tokenizer):
    """One id a byte of UTF-8."""

    level = "byte"
    size = 256
    _chunks = tuple(bytes([value]) for value in range(256))

    @classmethod
    def _restore(cls, config: dict[str, Any], payload: bytes) -> ByteTokenizer:
        check_config(config, payload, {})
        return cls()

    def to_bytes(self) -> tuple[dict[str, Any], bytes]:
        return {"level": self.level}, b""

    def encode(self, text: str) -> Ids:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def decoder(self) -> Decoder:
        return ByteDecoder(self._chunks)

    def symbol(self, token: int) -> str:
        if token == self.size:
            return START
        return chr(token) if token < 0x80 else f"<0x{token:02X}>"
