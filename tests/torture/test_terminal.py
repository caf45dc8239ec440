"""Whatever a text, a vocabulary, a name or an error says: a terminal gets nothing to obey but what charrnn itself draws with."""

import os
import pty
import random
import re
import select
import termios
import threading
import unicodedata
from contextlib import contextmanager

import pytest
from conftest import cases, found

from charrnn import lines, screen, tables
from charrnn.commands.streams import Writer
from charrnn.events import End, Evaluation, Sample, Saved, Start, Step

OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[hl]|\?7[hl]|\?1049[hl]|[0-9]*[ABCDGK]|2?J|H)|\r\n")  # rich's: colours, cursor, screen
BITS = [
    "\x1b[6n", "\x1b[99;99H", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x1b\\", "\x1bP$q\x1b\\", "\x1bc", "\x9b6n", "\x9d0;x\x9c", "\x90",
    "\x07", "\x08\x08", "\r", "\x7f", "\x0b", "\x0c", "\x0e", "\x85", "\u2028", "\u2029", "\u200e", "\u200f", "\u061c", "\u202a",
    "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\ud800", "\udc9b", "\ufffe", "\U0001ffff",
    "[bold]", "[/]", "[red]x[/red]", "[link=http://x]y[/link]", ":warning:", "\\[", "người", "e\u0323\u0302", "日本",
    "\U0001f469\u200d\U0001f680", "\n", "\t", " ", "a",
]


def fuzz(chance, most=8):
    parts = [chance.choice(BITS) if chance.random() < 0.8 else chr(chance.randrange(0x110000)) for _ in range(chance.randrange(1, most))]
    return "".join(parts)


@contextmanager
def terminal():
    """A stream that is a terminal, and a list of what reached it."""
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # bytes arrive as they were written
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    got, over = [], threading.Event()

    def read():
        while select.select([master], [], [], 0.05)[0] or not over.is_set():
            if select.select([master], [], [], 0)[0]:
                got.append(os.read(master, 1 << 16))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        with open(slave, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stream:  # as main() sets up stdout
            yield stream, got
    finally:
        over.set()
        reader.join()
        os.close(slave)
        os.close(master)


def check(raw):
    """Only letters, newlines and tabs, once what rich draws with is taken out."""
    said = OWN.sub("", b"".join(raw).decode())
    wrong = {char for char in said if char not in "\n\t" and (
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in
        ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI") or char in "\u200e\u200f\u061c")}
    assert not wrong, (wrong, said[-300:])
    return said


def events(chance):
    text = fuzz(chance)
    start = Start(step=0, run=fuzz(chance), text=text, level="char", vocabulary=7, cell="gru", layers=1, hidden=5, embedding=3,
                  parameters=99, training_tokens=11, validation_tokens=13, steps=17, batch=2, window=3, device="cpu", threads=1,
                  seconds=0.0, notes=(fuzz(chance), fuzz(chance)), options=("--encoding", fuzz(chance)))
    figures = {"training_nats_per_character": 2.0, "validation_nats_per_character": 2.2, "validation_bits_per_character": 3.2,
               "validation_perplexity": 9.5}
    yield start
    yield Step(step=1, steps=17, epoch=0.5, training_nats_per_character=2.5, learning_rate=0.01, gradient_norm=1.0,
               characters_per_second=1234.0, seconds=1.0, remaining=2.0)
    yield Evaluation(step=2, best=True, seconds=2.0, **figures)
    yield Sample(step=2, text=fuzz(chance, 40))
    yield Saved(step=2, path=fuzz(chance))
    yield End(step=3, reason=chance.choice(["finished", "stopped early", "interrupted"]), run=start.run, steps=3, best_step=2,
              seconds=9.0, characters_per_second=5.0, parameters=99,
              outlook=chance.choice(["", "overfits", "memory"]), advice=(fuzz(chance),), **figures)


def say(chance, stream):
    """One output of some kind, as the commands make it; how many strings were in it."""
    kind = chance.randrange(8)
    if kind <= 2:
        write = Writer(stream)
        for _ in range(5):
            write(fuzz(chance))
        write.end_line()
        return 5
    if kind == 3:
        screen.error_line(fuzz(chance))
        screen.warn(fuzz(chance))
        return 2
    if kind == 4:
        view = lines.PlainLines(stream, texts=[fuzz(chance)])
        for event in events(chance):
            view(event)
        return 9
    if kind == 5:
        screen.json_line({fuzz(chance): [fuzz(chance), {"x": fuzz(chance)}]})
        view = lines.JsonLines(stream)
        for event in events(chance):
            view(event)
        return 11
    if kind == 6:
        tables.inspect_view({"run": fuzz(chance), "text": {fuzz(chance): fuzz(chance)}, "vocabulary": {"symbols": [fuzz(chance)]},
                             "configuration": {"training": {"encoding": fuzz(chance)}}, "parameters": [(fuzz(chance), (2, 3), 6)],
                             "best": {fuzz(chance): 1.0}, "files": [(fuzz(chance), 5)], "curve": [(1, 2.0, 3.0)]}, stream)
        tables.catalogue_table([{"name": fuzz(chance), "bytes": 5}], stream)
        return 9
    screen.novelty_line({"longest_copy": fuzz(chance), "copied_share": 0.5})
    screen.defect(ValueError(fuzz(chance)))
    return 2


def test_outputs_on_a_terminal(monkeypatch):
    chance, count = random.Random(11), 0
    with terminal() as (stream, got), monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        patch.setattr("sys.stderr", stream)
        while count < cases(600, 20_000):
            count += say(chance, stream)
    said = check(got)
    assert "␛" in said and "‹U+202E›" in said and "[bold]" in said and "người" in said
    found(10, f"{count:,} strings with control, escape and bidi characters, in outputs of every kind on a pseudo-terminal: none obeyed")


def test_the_dashboard_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("LINES", "32")
    chance, count = random.Random(12), 0
    for _ in range(cases(3, 60)):
        with terminal() as (stream, got), monkeypatch.context() as patch:
            patch.setattr("sys.stderr", stream)
            with screen.training_view(stream, texts=[fuzz(chance)]) as view:
                assert type(view).__name__ == "Dashboard"
                for event in events(chance):
                    view(event)
                    if isinstance(event, Saved):
                        screen.warn(fuzz(chance))
                        view.live.refresh()
            count += 10
        assert "charrnn" in check(got)
    found(10, f"{count} strings of that kind in dashboards: none obeyed")


@pytest.mark.parametrize("raw", [False, True])
def test_raw_and_pipes_get_the_exact_text(raw, tmp_path):
    text = "a\x1b[31mb\u202ec\x9b\r\n"
    with terminal() as (stream, got):
        Writer(stream, raw)(text)
    assert (b"".join(got) == text.encode()) is raw
    with open(tmp_path / "pipe", "w", encoding="utf-8", newline="") as stream:
        Writer(stream, raw)(text)
    assert (tmp_path / "pipe").read_bytes() == text.encode()
