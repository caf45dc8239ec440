"""Encoding by several processes: the same bytes as by one, nothing half-made however it ends, and no process without need."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from charrnn import corpus, encoding, word
from charrnn.corpus import prepare
from charrnn.errors import DataError, StorageError
from charrnn.text import Text, open_text
from charrnn.tokenizer import LEVELS, build
from charrnn.tokens import cut

PARTS = ["the time traveller’s machine didn't wait", " ", "\r\n", "\n\n\n", "Người ta thấy một đêm", "me\u0323\u0302t no\u0308", "x" * 1500,
         "\U0001f469\u200d\U0001f680", "ü", "\u0645\u06cc\u200c\u062e\u0648\u0627", "\u4e2d\u6587\u3002" * 9, "\u2581\u2581", "y z" * 900,
         "'", "12:30!\t"]


def odd(characters: int, seed: int = 0) -> str:
    chance, text = random.Random(seed), ""
    while len(text) < characters:
        text += chance.choice(PARTS) + chance.choice(["", " ", f" w{chance.randrange(300)} "])
    return text[:characters]


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch):
    """So many processes for texts of any size, and pieces of an odd size."""
    def use(count: int, size: int = 9973) -> None:
        monkeypatch.setattr(encoding, "processes", lambda *_: count)
        monkeypatch.setattr(Text.pieces, "__defaults__", (size, 0, None))
    return use


@pytest.mark.parametrize("level", LEVELS)
def test_the_store_is_the_same_whatever_the_number_of_processes(level: str, several, tmp_path: Path, monkeypatch) -> None:
    path, stores = tmp_path / "odd.txt", []
    path.write_bytes(odd(150_000).encode() + "\u0107 unknown \u0106".encode())
    known = build(level, lambda: [odd(20_000, seed=3)], 600 if level in ("word", "subword") else None)
    for count, size in ((1, 1 << 20), (1, 4999), (2, 9973), (3, 4999)):
        several(count, size)
        prepare(open_text([path]), level=level, tokenizer=known, cache=tmp_path / f"{count}-{size}")
        file, = (tmp_path / f"{count}-{size}").iterdir()
        stores.append(file.read_bytes())
        monkeypatch.setattr(encoding.Crew, "_drop", lambda *_: pytest.fail("a process ended before its time"))
        monkeypatch.setattr(encoding.Crew, "end", end)
    assert len(set(stores)) == 1


@pytest.mark.parametrize("most", [100, 1000, 10**6])
def test_the_vocabulary_is_the_same_whatever_the_number_of_processes(most: int, several, tmp_path: Path, monkeypatch) -> None:
    """Ties, and a table that forgets, and all."""
    chance, found = random.Random(0), []
    text = odd(20_000) + " ".join(f"w{int(chance.paretovariate(0.4)) % 2000}" for _ in range(20_000))
    counts = Counter(word.split(text))
    assert 1000 < len(counts) < 3000 and len(set(counts.values())) < len(counts) / 5
    (tmp_path / "odd.txt").write_bytes(text.encode())
    monkeypatch.setattr(word, "COUNTED", most)
    monkeypatch.setattr(encoding.Crew, "_drop", lambda *_: pytest.fail("a process ended before its time"))
    monkeypatch.setattr(encoding.Crew, "end", end)
    for count in (1, 2, 3):
        several(count)
        known = prepare(open_text([tmp_path / "odd.txt"]), level="word", vocab_size=900, valid=0, cache=None).tokenizer
        found.append(known.to_bytes()[0]["words"])
    assert found[0] == found[1] == found[2] and 50 < len(found[0]) < 900
    best = sorted((word for word, count in counts.items() if count > 1 and len(word) > 1), key=lambda word: (-counts[word], word))
    assert (found[0] == best[: len(found[0])]) == (most == 10**6)


def end(crew: encoding.Crew) -> None:
    """The end of processes that were all there until now."""
    assert all(child and child.poll() is None for child in crew.children)
    for child in crew.children:
        child.communicate()


@pytest.mark.parametrize("level", ["word", "subword"])
def test_parts_cut_at_borders_are_encoded_as_the_whole(level: str) -> None:
    text, chance = odd(40_000, seed=1), random.Random(2)
    known = build(level, lambda: [text], 600)
    for longest in (3, 50, 5000):
        places = sorted({0, len(text), *(chance.randrange(len(text)) for _ in range(2 * len(text) // longest))})
        parts = list(cut((text[a:b] for a, b in itertools.pairwise(places)), known.border))
        assert "".join(parts) == text and all(parts) and len(parts) > 5
        assert np.array_equal(np.concatenate(list(map(known.encode, parts))), known.encode(text))


@pytest.mark.parametrize("level", ["word", "subword"])
@pytest.mark.parametrize("text", ["\n", "\u2581", "x", "'", "\u0301", "\u4e2d", "x'", " ", "\r\n"])
def test_what_is_held_back_of_a_monotonous_text_is_bounded(level: str, text: str) -> None:
    known = build(level, lambda: ["some words\nof a text"], 300)
    long = text * (20_000 // len(text))
    assert len(long) - known.border(long) < 2_500
    assert np.array_equal(np.concatenate(list(known.encode_pieces([long, long]))), known.encode(long + long))


def test_a_process_that_ends_is_done_without(several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.txt").write_bytes(odd(100_000).encode())
    text = open_text([tmp_path / "odd.txt"])
    several(1)
    prepare(text, level="word", cache=tmp_path / "whole")
    several(2)
    answer, children = encoding.Crew._answer, []

    def deadly(crew: encoding.Crew, at: int, part: encoding.Part | str) -> object:
        children.extend(child for child in crew.children if child and child not in children)
        if crew.children[1] and len(part if isinstance(part, str) else part[1]) % 3 == 0:
            os.kill(crew.children[1].pid, signal.SIGKILL)
        return answer(crew, at, part)

    monkeypatch.setattr(encoding.Crew, "_answer", deadly)
    prepare(text, level="word", cache=tmp_path / "killed")
    assert len(children) == 4 and all(child.returncode is not None for child in children)  # that count, and that encode
    monkeypatch.setattr(sys, "executable", "/bin/false")
    prepare(text, level="word", cache=tmp_path / "failing")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    prepare(text, level="word", cache=tmp_path / "none")
    whole = next((tmp_path / "whole").iterdir()).read_bytes()
    assert all(next((tmp_path / name).iterdir()).read_bytes() == whole for name in ("killed", "failing", "none"))


def test_a_text_that_changes_or_a_full_disk_ends_it_in_one_line(several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ended = tmp_path / "odd.txt", []
    path.write_bytes(odd(100_000).encode())
    text = open_text([path])
    known = build("char", text.pieces)
    several(2)
    end = encoding.Crew.end
    monkeypatch.setattr(encoding.Crew, "end", lambda crew: (ended.extend(crew.children), end(crew)))
    write, places = corpus.Writer.write, []

    def full(file: corpus.Writer, data: bytes) -> None:
        places.append(file.path)
        if len(places) % 4 == 0:
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(corpus.Writer, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        prepare(text, level="char", cache=tmp_path / "cache")
    assert places == [places[0]] * 4 + [None] * 4 and not list((tmp_path / "cache").iterdir())
    os.utime(path, (0, 0))
    monkeypatch.setattr(corpus.Writer, "write", write)
    with pytest.raises(DataError, match="changed"):
        prepare(text, level="char", tokenizer=known, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir()) and len(ended) == 6 and all(child.poll() is not None for child in ended)


def test_processes_are_started_where_they_pay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(40)})
    assert encoding.processes("word", 15 << 20) < 2 <= encoding.processes("word", 16 << 20) and encoding.processes("char", 16 << 20) < 2
    assert encoding.processes("char", 10**12) == encoding.MOST
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert encoding.processes("word", 10**12) == 1
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process for nothing"))
    (tmp_path / "a.txt").write_text("hello" * 10)
    prepare(open_text([tmp_path / "a.txt"]), level="word", cache=None)


def test_a_process_knows_no_torch() -> None:
    code = "import sys, charrnn.encoding; assert not {'torch', 'typer', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("counts", [True, False], ids=["counting", "encoding"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_while_it_counts_or_encodes_leave_nothing_half_made(counts: bool, number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes(odd(60_000).encode() * 40)
    code = "import charrnn.encoding as e; e.processes = lambda *_: 2; from charrnn.__main__ import main; main()"
    environment = {**os.environ, "CHARRNN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, "train", "long.txt", "--level", "word", "--vocab-size", "2000", "--steps", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    children: list[str] = []
    while (len(children) < 2 or not (counts or list(tmp_path.glob("cache/.*.part")))) and time.monotonic() < end:
        time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(0.0 if counts else random.uniform(0, 0.3))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # a terminal tells them all
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10 and len(children) == 2, err
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number and "stopped" in err and err.count("\n") == 1, err
    if number != signal.SIGKILL or counts:
        assert not list(tmp_path.glob("cache/*"))
    else:
        assert len(list(tmp_path.glob("cache/.*.part"))) == 1
        (tmp_path / "other.txt").write_text("hello")
        prepare(open_text([tmp_path / "other.txt"]), level="char", cache=tmp_path / "cache")
        assert not list(tmp_path.glob("cache/.*.part"))
    while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
