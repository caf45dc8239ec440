"""Tokenizers from strangers: whatever is changed in them, they are refused, or are sound tokenizers after all; and no process ends."""

import functools
import random
import struct

import pytest
from conftest import VERSE, cases, found
from hostile import mutated

from charrnn import subword
from charrnn.errors import CheckpointError
from charrnn.pieces import FIRST, Piece, fields, model_of, pieces_of
from charrnn.tokenizer import LEVELS, Tokenizer, build

TEXT = VERSE * 12 + "me\u0323\u0302t \U0001f469\u200d\U0001f680 \u2581 don't\r\n"


@functools.cache
def tokenizer(level):
    return build(level, lambda: [TEXT])


def sound(known):
    """Every text comes back exactly, whatever the pieces are."""
    for text in (TEXT, subword.PROBE, "x\ufffd\u0323\u2581\u2581 \n\n<0x41>"):
        assert known.decode(known.encode(text)) == text
    assert all(isinstance(known.symbol(token), str) for token in range(known.size + 1))


def test_mutated_models_of_subwords():
    chance, (config, payload) = random.Random(7), tokenizer("subword").to_bytes()
    refused = same = valid = 0
    count = cases(400, 16_000)
    for _ in range(count):
        while (other := mutated(payload, chance)) == payload:
            pass
        with pytest.raises(CheckpointError):
            Tokenizer.from_bytes(config, other)  # the digest that is recorded with it is another
        try:
            known = subword.SubwordTokenizer(other)  # as if the digest had been made anew
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        before, after = pieces_of(payload), pieces_of(other)
        same += before == after
        valid += before != after
        assert known.model == model_of(after)
        sound(known)
    found(7, f"{count:,} mutated models of subwords: with their digest all refused; with a new one {refused:,} refused, {valid} valid "
             f"models with another score or piece, {same} the same pieces")
    assert refused + same + valid == count and refused > count / 2


def changed(change):
    pieces = pieces_of(tokenizer("subword").model)
    change(pieces)
    return model_of(pieces)


WORD = len(FIRST) + 5
HOSTILE = {
    "nothing": b"",
    "noise": random.Random(1).randbytes(4000),
    "a piece twice": changed(lambda p: p.append(p[WORD])),
    "an empty piece": changed(lambda p: p.append(Piece("", -3.0, 1))),
    "a piece with NUL": changed(lambda p: p.append(Piece("a\0b", -3.0, 1))),
    "a piece with a line end": changed(lambda p: p.append(Piece("a\nb", -3.0, 1))),
    "a piece with a space": changed(lambda p: p.append(Piece("a b", -3.0, 1))),
    "a long piece": changed(lambda p: p.append(Piece("ab" * 5000, -3.0, 1))),
    "a second <unk>": changed(lambda p: p.append(Piece("<other>", 0.0, 2))),
    "a control piece": changed(lambda p: p.append(Piece("<s>", 0.0, 3))),
    "an unused piece": changed(lambda p: p.append(Piece("xyz", -3.0, 5))),
    "a piece of no kind": changed(lambda p: p.append(Piece("xyz", -3.0, 99))),
    "a byte too many": changed(lambda p: p.append(Piece("<0x100>", 0.0, 6))),
    "a byte missing": changed(lambda p: p.pop(40)),
    "bytes in another order": changed(lambda p: p.insert(40, p.pop(41))),
    "no <unk>": changed(lambda p: p.pop(0)),
    "no line end": changed(lambda p: p.pop(1)),
    "no space": changed(lambda p: p.remove(next(piece for piece in p if piece.text == "\u2581"))),
    "nothing but bytes": changed(lambda p: p.__delitem__(slice(len(FIRST), None))),
    "a score that is no number": changed(lambda p: p.append(Piece("xyz", float("nan"), 1))),
    "an infinite score": changed(lambda p: p.append(Piece("xyz", float("-inf"), 1))),
    "an enormous score": changed(lambda p: p.append(Piece("xyz", -3e38, 1))),
    "a good score": changed(lambda p: p.append(Piece("xyz", 5.0, 1))),
    "the pieces alone": tokenizer("subword").model[: tokenizer("subword").model.index(b"identity") - 20],
    "something after it": tokenizer("subword").model + b"\0",
    "a length without end": tokenizer("subword").model + b"\x0a" + b"\xff" * 12,
    "a length past the end": tokenizer("subword").model + b"\x0a\xff\xff\xff\x7f",
    "a group": tokenizer("subword").model + b"\x0b",
    "a table of normalisation": tokenizer("subword").model.replace(b"\x0a\x08identity", b"\x12\x08identity"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models_of_subwords(name):
    with pytest.raises(CheckpointError):
        subword.SubwordTokenizer(HOSTILE[name])


def test_a_crowd_of_pieces_ends_at_once():
    import time

    piece = b"\x0a\x0a\x0a\x03%03x\x15\0\0\x80\xbf"
    began = time.process_time()
    with pytest.raises(CheckpointError):
        subword.SubwordTokenizer(b"".join(piece % (number % 4096) for number in range(600_000)))
    assert time.process_time() - began < 3


def test_fields_that_are_numbers_and_floats():
    message = b"\x08\x96\x01\x12\x07testing\x1d" + struct.pack("<f", 1.5)
    assert list(fields(message)) == [(1, 0, 150), (2, 2, b"testing"), (3, 5, struct.pack("<f", 1.5))]


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "subword"])
def test_mutated_vocabularies(level):
    """Characters, words and fields changed: refused, or a vocabulary that is sound."""
    chance, (config, payload) = random.Random(3), tokenizer(level).to_bytes()
    refused = valid = 0
    for _ in range(cases(300, 5_000)):
        other, name = dict(config), chance.choice(list(config))
        value = config[name]
        if isinstance(value, str):
            place = chance.randrange(len(value) + 1)
            new = chr(chance.choice([0, 10, 0x1B, 0x41, 0x323, 0xD800, 0xDFFF, 0x10FFFF, chance.randrange(0x110000)]))
            other[name] = chance.choice([value[:place] + new + value[place:], value[:place] + value[place + 1 :], value[::-1], new, ""])
        else:
            words, place = list(value), chance.randrange(len(value))
            kind = chance.randrange(5)
            if kind == 0:
                words[place] = chance.choice([None, 5, "", "a", "a b", "\ud800\ud800", words[place - 1], words[place] + "\n"])
            elif kind == 1:
                words.append(words[place])
            elif kind == 2:
                del words[place]
            elif kind == 3:
                words.reverse()
            else:
                words[place] = words[place][::-1] + words[place]
            other[name] = words
        if chance.random() < 0.1:
            other[chance.choice(["more", "level", "words", "characters"])] = chance.choice([None, 1, [], {}, "x", 1e999])
        try:
            known = Tokenizer.from_bytes(other, b"x" if chance.random() < 0.1 else payload)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        valid += 1
        sound(known)
    found(7, f"{refused + valid:,} mutated vocabularies of level {level}: {refused:,} refused, {valid:,} sound")
    assert refused
