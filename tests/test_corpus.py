"""The corpus: split exactly, encoded as the text is, found again, and never trusted when damaged."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import math
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import corpus as module
from charrnn import fingerprint
from charrnn.corpus import Corpus, Fingerprint, Store, prepare
from charrnn.errors import StorageError, UsageError
from charrnn.store import Writer, cache_folder, opened
from charrnn.text import Text, open_text
from charrnn.tokenizer import LEVELS, build

WORDS = ["the", "time", "traveller", "for", "so", "it", "will", "be", "convenient", "to", "speak", "of", "him", "was", "a", "recondite"]


def prose(characters: int, seed: int = 0) -> str:
    chance, text = random.Random(seed), ""
    while len(text) < characters:
        text += chance.choice(WORDS) + chance.choice([" ", " ", " ", ", ", ".\n"])
    return text[:characters]


@pytest.fixture
def write(tmp_path: Path) -> object:
    def text(content: str, name: str = "some.txt") -> Text:
        (tmp_path / name).write_bytes(content.encode())
        return open_text([tmp_path / name])
    return text


def tokens(part: module.Part) -> np.ndarray:
    return part.store.read(0, part.store.count)


def same(one: Corpus, two: Corpus) -> bool:
    return (one.tokenizer.digest == two.tokenizer.digest and np.array_equal(tokens(one.training), tokens(two.training))
            and np.array_equal(tokens(one.validation), tokens(two.validation)) and np.array_equal(one.unigram, two.unigram)
            and np.array_equal(one.fingerprint.hashes, two.fingerprint.hashes) and one.fingerprint.below == two.fingerprint.below
            and [dataclasses.replace(part, store=None) for part in (one.training, one.validation)]
            == [dataclasses.replace(part, store=None) for part in (two.training, two.validation)])


@pytest.mark.parametrize("level", LEVELS)
def test_parts_are_the_text_split_and_encoded(level: str, write, tmp_path: Path) -> None:
    content = prose(4001) + "é\U0001f680 zebra"  # the last part holds what the first does not
    corpus = prepare(write(content), level=level, valid=0.25, cache=tmp_path / "cache")
    split = int(len(content) * 0.75)
    expected = build(level, lambda: [content[:split]])
    assert corpus.tokenizer.digest == expected.digest and corpus.held_out and corpus.notes == ()
    for part, piece in ((corpus.training, content[:split]), (corpus.validation, content[split:])):
        ids = expected.encode(piece)
        assert np.array_equal(tokens(part), expected.model_ids(ids))
        assert (part.tokens, part.characters, part.bytes) == (len(ids), len(piece), len(piece.encode()))
        assert part.unknown == (ids > expected.size).sum()
    assert corpus.validation.unknown == (3 if level in ("char", "word") else 0)
    assert corpus.training.store.dtype == (np.uint8 if level in ("char", "byte") or expected.size <= 256 else np.uint16)
    assert np.array_equal(corpus.unigram, np.bincount(tokens(corpus.training), minlength=expected.size))
    p = corpus.unigram[corpus.unigram > 0] / corpus.training.tokens
    assert math.isclose(corpus.unigram_nats_per_character, -(p * np.log(p)).sum() * corpus.training.tokens / split)
    assert corpus.fingerprint.overlap([content]) > 0.7


def test_characters_that_are_too_rare_are_told_and_paid_for(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.tokens.RARE", 1_000)
    corpus = prepare(write("a" * 2999 + "é" + "b" * 500), level="char", valid=0.1, cache=tmp_path)
    assert corpus.training.unknown == 1 and corpus.notes[-1].startswith("1 of the characters to learn from")
    assert corpus.unigram[corpus.tokenizer.escape or 0] == 1
    shares = corpus.unigram / 3150
    nats = -(shares * np.log(shares)).sum() + math.log(1_112_064 - 2) / 3150
    assert math.isclose(corpus.unigram_nats_per_character, nats)


@pytest.mark.parametrize("level", LEVELS)
def test_the_second_time_it_is_found(level: str, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    text = write(prose(3000))
    first = prepare(text, level=level, cache=cache)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(module, "build", None)
    assert same(prepare(open_text([tmp_path / "some.txt"]), level=level, cache=cache), first)
    monkeypatch.undo()
    prepare(text, level=level, valid=0.2, cache=cache)
    prepare(text, level=level, tokenizer=first.tokenizer, cache=cache)
    prepare(open_text([tmp_path / "some.txt"], errors="replace"), level=level, cache=cache)
    prepare(write(prose(3000, seed=1), "other.txt"), level=level, cache=cache)
    assert len(list(cache.iterdir())) == 5  # each of these is another store
    assert same(prepare(text, level=level, cache=None), first) and len(list(cache.iterdir())) == 5


def test_a_damaged_or_foreign_store_is_written_anew(write, tmp_path: Path) -> None:
    cache, text, chance = tmp_path / "cache", write(prose(2000)), random.Random(3)
    first = prepare(text, level="char", cache=cache)
    path, = cache.iterdir()
    raw = path.read_bytes()
    damage = [b"", b"short", raw[:-1], raw + b"x", raw[:-8] + b"charrnn2", raw[1:], bytes(len(raw)), raw[:-16] + b"\xff" * 8 + raw[-8:]]
    for _ in range(40):
        place = chance.randrange(len(raw))
        damage.append(raw[:place] + bytes([raw[place] ^ 1 << chance.randrange(8)]) + raw[place + 1 :])
    for bad in damage:
        path.unlink()  # others hold the file open
        path.write_bytes(bad)
        assert opened(path) is None
        assert same(prepare(text, level="char", cache=cache), first) and path.read_bytes() == raw
    found = opened(path)
    assert found is not None
    for change in ({"key": {}}, {"parts": []}, {"parts": [{}]}, {"tokenizer": {"level": "char"}}, {"dtype": "float64"},
                   {"dtype": 5}, {"hashes": "x"}, {"payload": -5}, {"payload": 10**12}, {"below": None},
                   {"parts": [found.about["parts"][0] | {"tokens": 10**9}, found.about["parts"][1]]}):
        with Writer(path) as file:  # whole by its digest, and nonsense
            file.write(raw[:2500])
            file.finish(found.about | change)
        assert same(prepare(text, level="char", cache=cache), first), change
    path.unlink()
    path.symlink_to(tmp_path / "some.txt")
    assert same(prepare(text, level="char", cache=cache), first) and not path.is_symlink()
    assert (tmp_path / "some.txt").read_text(encoding="utf-8") == prose(2000)


def test_a_cache_that_cannot_be_written_is_done_without(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write(prose(2000))
    first = prepare(text, level="char", cache=None)
    assert same(prepare(text, level="char", cache=tmp_path / "some.txt" / "cache"), first)
    calls: list[int] = []

    def full(*_: object) -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert same(prepare(text, level="char", cache=tmp_path / "cache"), first) and calls
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-written stays
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        prepare(text, level="char", cache=tmp_path / "cache")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, write, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("CHARRNN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/charrnn")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/charrnn")
    monkeypatch.setenv("CHARRNN_CACHE", str(tmp_path / "own"))
    prepare(write("hello"), level="char")
    assert len(list((tmp_path / "own").iterdir())) == 1


def test_unfinished_files_of_killed_writers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys; from pathlib import Path; from charrnn.store import Writer; Writer(Path(sys.argv[1])).write(b'x'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "killed.tokens"], timeout=60)
    old, other = tmp_path / ".old.tokens.1.part", tmp_path / "own.txt"
    for path in (old, other):
        path.write_bytes(b"x")
    assert len(list(tmp_path.glob(".killed.tokens.*.part"))) == 1
    with Writer(tmp_path / "living.tokens") as living:
        living.write(b"y")
        with Writer(tmp_path / "c.tokens"):
            pass
        assert sorted(tmp_path.iterdir()) == [living.aside, other]
    old.write_bytes(b"x")
    monkeypatch.setattr("fcntl.flock", refuse)  # a file system without locks: age decides
    with Writer(tmp_path / "c.tokens"):
        assert old.exists()
    os.utime(old, (0, time.time() - 10**6))
    with Writer(tmp_path / "c.tokens"):
        assert not old.exists()


def refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks")


def test_a_file_swept_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = fcntl.flock, []

    def late(fd: int, how: int) -> None:
        if not swept:
            swept.extend(tmp_path.glob(".*.part"))
            swept[0].unlink()
        lock(fd, how)

    monkeypatch.setattr("fcntl.flock", late)
    with Writer(tmp_path / "c.tokens") as file:
        file.write(b"x")
        file.finish({})
    assert swept and [path.name for path in tmp_path.iterdir()] == ["c.tokens"]


def test_a_small_text_is_validated_on_itself(write) -> None:
    for content in ("h", "hello", "a" * 999):
        corpus = prepare(write(content), level="char", cache=None)
        assert not corpus.held_out and corpus.validation is corpus.training and corpus.training.characters == len(content)
        assert "validated on what it is trained on" in corpus.notes[-1] and corpus.unigram.sum() == len(content)
    assert prepare(write("a" * 1000), level="char", cache=None).held_out
    corpus = prepare(write("\ufeff" + prose(2000)), level="char", valid=0, cache=None)
    assert not corpus.held_out and corpus.training.characters == 2000 and len(corpus.notes) == 2


def test_options_out_of_range(write) -> None:
    text = write("hello")
    for options in ({"level": "syllable"}, {"level": "char", "valid": 1.0}, {"level": "char", "valid": -0.1},
                    {"level": "char", "valid": math.nan}, {"level": "char", "vocab_size": 5},
                    {"level": "word", "tokenizer": build("char", lambda: ["x"])}):
        with pytest.raises(UsageError):
            prepare(text, cache=None, **options)
    assert prepare(write(prose(1500)), level="char", valid=0.9999, cache=None).training.characters == 1


@given(ids=st.lists(st.integers(0, 70_000), max_size=30), start=st.integers(-2, 33), stop=st.integers(-2, 33))
@settings(max_examples=100, deadline=None)
def test_a_store_reads_what_was_written(ids: list[int], start: int, stop: int) -> None:
    store = Store.of(np.array(ids, np.int64))
    assert store.count == len(ids) and store.dtype == np.min_scalar_type(max(ids, default=0))
    assert store.read(start, stop).tolist() == ids[max(start, 0) : max(stop, 0)]


def test_a_store_that_is_cut_short_says_so(write, tmp_path: Path) -> None:
    corpus = prepare(write(prose(5000)), level="byte", cache=tmp_path / "cache")
    path, = (tmp_path / "cache").iterdir()
    os.truncate(path, 100)
    assert len(corpus.training.store.read(0, 100)) == 100
    with pytest.raises(StorageError, match="cut short"):
        corpus.training.store.read(50, 150)


def test_memory_does_not_grow_with_the_text(write, tmp_path: Path) -> None:
    prepare(write(prose(100_000)), level="char", cache=None)  # tables that are made once
    text = write(prose(500_000) * 24)
    tracemalloc.start()
    corpus = prepare(text, level="char", cache=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert corpus.training.tokens == 10_800_000 and peak < 48 << 20, f"{peak >> 20} MB"


# Fingerprints

def naive(text: str) -> list[int]:
    """The hash of each passage by Horner's rule, in Python's integers."""
    def mix(h: int) -> int:
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        h = (h ^ h >> 27) * 0x94D049BB133111EB % 2**64
        return h ^ h >> 31

    hashes = []
    for place in range(len(text) - fingerprint.LENGTH + 1):
        h = 0
        for character in text[place : place + fingerprint.LENGTH]:
            h = (h * fingerprint.BASE + mix(ord(character) + 1)) % 2**64
        hashes.append(mix(h))
    return hashes


@given(text=st.text(max_size=130), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_passages_in_pieces_are_the_naive_ones(text: str, cuts: list[int]) -> None:
    pieces, rest = [], text
    while rest:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(rest[:size])
        rest = rest[size:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "BLOCK", 7)
        assert np.concatenate([np.empty(0, np.uint64), *fingerprint.hashes_of(pieces)]).tolist() == naive(text)
        kept = Fingerprint.of(pieces)
    assert kept.hashes.tolist() == sorted(set(naive(text))) and kept.below == 2**64


def test_a_fingerprint_keeps_the_smallest_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "KEPT", 50)
    text = prose(3000)
    expected = sorted(set(naive(text)))
    for size in (1, 30, 47, 48, 100, 3000):
        kept = Fingerprint.of(text[place : place + size] for place in range(0, 3000, size))
        assert kept.hashes.tolist() == expected[:50] and expected[49] < kept.below <= expected[50]


def test_overlap() -> None:
    text, other = prose(60_000), prose(30_000, seed=1)
    kept = Fingerprint.of([text])
    assert len(kept.hashes) == fingerprint.KEPT
    assert kept.overlap([text]) == 1 and kept.overlap([text[1000:20_000]]) == 1
    assert kept.overlap([other]) == 0
    assert abs(kept.overlap([text[:30_000], other]) - 0.5) < 0.05
    assert kept.overlap(iter(text[:5000])) == kept.overlap([text[:5000]]) == 1  # passages that straddle pieces count
    for short in ("", "hello", "x" * 47):
        assert kept.overlap([short]) == 0 and Fingerprint.of([short]).overlap([text]) == 0
        assert len(Fingerprint.of([short]).hashes) == 0
    assert Fingerprint.of(["ab" * 5000]).overlap(["ab" * 300]) == 1  # a text that repeats itself is known as well


def test_tiny_shakespeare_is_split_as_published() -> None:
    path = Path(os.environ.get("CHARRNN_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora") / "tiny_shakespeare.txt"
    if not path.is_file():
        pytest.skip("tiny_shakespeare.txt is not there: set CHARRNN_CORPORA to a folder that holds it")
    corpus = prepare(open_text([path]), level="char", cache=None)
    assert (corpus.training.characters, corpus.validation.characters, corpus.tokenizer.size) == (1_003_854, 111_540, 66)
    assert corpus.fingerprint.overlap(open_text([path]).pieces(start=1_003_854)) < 0.02
