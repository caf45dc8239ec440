"""The one kind of SentencePiece model that charrnn writes, read without SentencePiece: its own loader takes damaged models, and some of
them end the process. Only what `model_of` makes anew from checked pieces is given to it.

A model is a protocol buffer: field 1 a piece (1 its text, 2 its score, 3 its kind), field 2 how it was trained, field 3 how a text is
normalised. The pieces are <unk>, the line end, 256 bytes, and then the parts of words, with U+2581 for a space.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from charrnn.errors import CheckpointError

SPACE = "\u2581"
NORMAL, UNKNOWN, USER, BYTE = 1, 2, 4, 6
LONGEST_PIECE = 16  # code points: SentencePiece's own limit
MOST = 1 << 18  # pieces
WORST, BEST = 1_000.0, 0.01  # a score is the logarithm of a probability, but for rounding; a line's must add up well in float32
VARINT, BYTES, FIXED = 0, 2, 5  # wire types

# Of the training and the normalisation what decides how a text is read: unigram pieces, bytes for what is rare, nothing normalised.
TRAINED: dict[int, int | bytes] = {3: 1, 35: 1}
NORMALISED: dict[int, int | bytes] = {1: b"identity", 3: 0, 4: 0}
ABSENT: dict[int, Any] = {3: 1, 24: 0}  # what is meant where a field of the training is not there
_NOT_IN_PIECES = re.compile("[\0\n ]")


class Piece(NamedTuple):
    """A symbol of a model."""

    text: str
    score: float
    kind: int


FIRST = [Piece("<unk>", 0.0, UNKNOWN), Piece("\n", 0.0, USER), *(Piece(f"<0x{value:02X}>", 0.0, BYTE) for value in range(256))]


def pieces_of(model: bytes) -> list[Piece]:
    """The pieces of a model; CheckpointError for whatever `model_of` or SentencePiece, as charrnn calls it, would not have written."""
    try:
        pieces: list[Piece] = []
        specs: dict[int, dict[int, Any]] = {}
        for number, wire, value in fields(model):
            if number == 1 and wire == BYTES and not specs and len(pieces) < MOST:
                pieces.append(_piece(value))
            elif number in (2, 3) and wire == BYTES and number not in specs:
                specs[number] = {field: content for field, _, content in fields(value)}
            else:
                raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, struct.error):
        raise CheckpointError("the tokenizer is damaged: its SentencePiece model cannot be read") from None
    if _encoded(pieces) != model[: len(_encoded(pieces))]:
        raise CheckpointError("the tokenizer is damaged: its SentencePiece model is not written as charrnn writes it")
    trained, normalised = ABSENT | specs.get(2, {}), specs.get(3, {})
    if any(trained.get(field) != value for field, value in {**TRAINED, 24: 0}.items()) or normalised.get(2, b"") != b"" or (
            normalised.get(5, 1) != 1 or any(normalised.get(field) != value for field, value in NORMALISED.items())):
        raise CheckpointError("the tokenizer is damaged: its SentencePiece model changes the text")
    words = pieces[len(FIRST) :]
    texts = {piece.text for piece in pieces}
    if pieces[: len(FIRST)] != FIRST or len(texts) != len(pieces) or SPACE not in texts:
        raise CheckpointError("the tokenizer is damaged: its SentencePiece model is not of charrnn's kind")
    for text, score, kind in words:
        if kind != NORMAL or not 0 < len(text) <= LONGEST_PIECE or _NOT_IN_PIECES.search(text) or not -WORST <= score <= BEST:
            raise CheckpointError(f"the tokenizer is damaged: its SentencePiece model has an impossible piece, {text[:20]!r}")
    return pieces


def model_of(pieces: Iterable[Piece]) -> bytes:
    """The model of these pieces: the same pieces, the same bytes."""
    return _encoded(pieces) + b"".join(_field(number, BYTES, b"".join(_written(spec)))
                                       for number, spec in ((2, TRAINED), (3, NORMALISED)))


def _piece(message: bytes) -> Piece:
    values = {(number, wire): value for number, wire, value in fields(message)}
    (score,) = struct.unpack("<f", values[2, FIXED])
    if not math.isfinite(score):
        raise ValueError
    return Piece(values[1, BYTES].decode(), score, values.get((3, VARINT), NORMAL))


def _encoded(pieces: Iterable[Piece]) -> bytes:
    kinds: dict[int, bytes] = {kind: b"" if kind == NORMAL else _field(3, VARINT, kind) for kind in range(128)}
    return b"".join(_field(1, BYTES, _field(1, BYTES, text.encode()) + b"\x15" + struct.pack("<f", score) + kinds.get(kind, b"?"))
                    for text, score, kind in pieces)


def _written(spec: dict[int, int | bytes]) -> Iterator[bytes]:
    for number, value in spec.items():
        yield _field(number, BYTES if isinstance(value, bytes) else VARINT, value)


def _field(number: int, wire: int, value: int | bytes) -> bytes:
    key = _varint(number << 3 | wire)
    return key + (_varint(value) if isinstance(value, int) else _varint(len(value)) + value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message: number, wire type, value. ValueError or IndexError where it is none."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = _number(message, place)
            yield number, wire, value
            continue
        size = 4
        if wire == BYTES:
            size, place = _number(message, place)
        elif wire != FIXED:
            raise ValueError("a kind of field that models do not have")
        if place + size > len(message):
            raise ValueError("cut short")
        yield number, wire, message[place : place + size]
        place += size


def _number(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, place, shift = value | (byte & 0x7F) << shift, place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number that is too long")
