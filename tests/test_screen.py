"""What the commands show: the dashboard in a pseudo-terminal, plain lines, JSON lines, tables."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import re
import shlex
import struct
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from charrnn import lines, picture, screen, wrapping
from charrnn.events import End, Evaluation, Event, Sample, Saved, Start, Step

HOSTILE = "\x1b]0;title\x07 \x1b[2J \x9b2J \u202eright\u202c [red]markup[/red] :smile: 日本語 e\u0301 \x00\x7f \u2028 \r end"
RUN = "checkpoints/a run"


def events(sample: str = HOSTILE, steps: int = 100, reason: str = "finished", note: str = "a [note]") -> Iterator[Event]:
    """A run of `steps` steps as training would tell it, its validation loss lowest at four fifths."""
    yield Start(
        step=0, run=RUN, text="book[1].txt", level="char", vocabulary=65, cell="gru", layers=2, hidden=128, embedding=0,
        parameters=1_234_567, training_tokens=900, validation_tokens=100, steps=steps, batch=3, window=7, device="cpu",
        threads=2, seconds=0.0, notes=(note,),
    )  # fmt: skip
    for step in range(1, steps + 1):
        nats = 4 / math.sqrt(step) + 1
        yield Step(
            step=step, steps=steps, epoch=step / 50, training_nats_per_character=nats, learning_rate=0.002,
            gradient_norm=math.nan if step == 3 else 0.5, dropout=0.25 if step > steps / 2 else 0.0, characters_per_second=101_234.5,
            seconds=step, remaining=steps - step,
        )  # fmt: skip
        if step % 20 == 0:
            best = step <= 0.8 * steps
            held = nats + 0.2 + (0 if best else 1)
            yield Evaluation(
                step=step, training_nats_per_character=nats, validation_nats_per_character=held,
                validation_bits_per_character=held / math.log(2), validation_perplexity=math.exp(held), best=best, seconds=step,
            )  # fmt: skip
            yield Saved(step=step, path=f"{RUN}/model.safetensors")
            yield Sample(step=step, text=sample)
    yield End(
        step=steps, reason=reason, run=RUN, steps=steps, best_step=80, seconds=steps, characters_per_second=1e5,
        parameters=1_234_567, training_nats_per_character=1.4, validation_nats_per_character=1.647,
        validation_bits_per_character=2.376, validation_perplexity=5.19, advice=("train [longer]",),
    )  # fmt: skip


def drawn(width: int, height: int, sample: str = HOSTILE, number: int | None = None) -> list[str]:
    """The rows of the dashboard after `number` events (all)."""
    story = picture.Story()
    for event in itertools.islice(events(sample), number):
        story.add(event)
    console = Console(file=io.StringIO(), width=width, height=height, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(picture.draw(story, width, height))
    return capture.get().removesuffix("\n").split("\n")


# The dashboard


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (100, 24), (100, 30), (120, 40), (44, 7), (300, 90)])
@pytest.mark.parametrize("number", [0, 1, 2, 30, None])
def test_the_picture_fits_exactly(width: int, height: int, number: int | None) -> None:
    rows = drawn(width, height, number=number)
    assert len(rows) <= height
    assert {cell_len(row) for row in rows} == {width}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 130), st.integers(1, 50), st.text(st.characters(), max_size=60))
def test_the_picture_never_outgrows_the_terminal(width: int, height: int, sample: str) -> None:
    rows = drawn(width, height, sample)
    assert len(rows) <= height
    assert all(cell_len(row) <= width for row in rows)


def test_parts_drop_out_as_the_height_shrinks() -> None:
    parts = ("a [note]", "it writes now", "◆ best", "perplexity", "step 100")
    seen = [[part in "".join(drawn(60, height)) for part in parts] for height in (30, 20, 14, 8, 3)]
    assert seen == [[False] * missing + [True] * (5 - missing) for missing in range(5)]


def test_the_picture_says_it_all() -> None:
    shown = " ".join("\n".join(drawn(120, 40)).split())
    for part in (
        "charrnn book[1].txt", "gru 2 × 128", "char level", "1.23 M parameters", RUN, "step 100 of 100", "1:40 finished",
        "101 K", "2.0e-03", "0.50", "2.600", "3.751", "13.46", "dropout 0.25 best 1.647 at step 80", "[red]markup[/red] :smile: 日本語",
        "␛]0;title␇", "‹U+009B›2J", "‹U+202E›right", "a [note]",
    ):  # fmt: skip
        assert part in shown


@given(st.text(st.sampled_from("ab 日e\u0301👩\u200d🔬"), max_size=50), st.integers(1, 12))
def test_wrapping_keeps_marks_with_their_letters_and_loses_only_spaces(line: str, width: int) -> None:
    rows = wrapping.wrapped(line, width)
    assert all(cell_len(row) <= width for row in rows)
    if "…" not in rows:  # which stands for a wide character that has no room
        assert all(row in line for row in rows)
        assert "".join(rows).replace(" ", "") == line.replace(" ", "")


@given(st.text(st.sampled_from("a日e\u0301👩\u200d🔬"), max_size=30), st.integers(3, 12))
def test_a_path_keeps_its_end(path: str, width: int) -> None:
    shown = wrapping.tail(path, width)
    assert cell_len(shown) <= width
    assert path.endswith(shown.removeprefix("…"))
    assert shown == path or not shown.startswith(("…\u0301", "…\u200d"))
    assert shown == path or "\u200d" in path or cell_len(shown) >= width - 1


def test_a_long_curve_stays_small() -> None:
    story = picture.Story()
    for event in events(steps=9000):
        story.add(event)
    assert len(story.training) <= picture.MOST_POINTS
    assert story.training[-1][0] > 8980


# In a terminal

SCRIPT = """
import sys, time
from charrnn import dashboard, screen
from tests.test_screen import events
dashboard.REFRESH = {refresh}
with screen.training_view(texts=["my book.txt"]) as show:
    for number, event in enumerate(events()):
        show(event)
        if number == 60:
            screen.warn("from [elsewhere]\\x1b[2J")
            time.sleep(1.2)
            {last}
"""


def in_terminal(last: str, width: int = 80, height: int = 24, refresh: float = 0.5, **environment: str) -> tuple[str, int]:
    """What a process writes to a terminal of that size, and its exit code."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    root = Path(__file__).parents[1]
    keep = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(last=last, refresh=refresh)], stdin=slave, stdout=slave, stderr=slave, cwd=root,
        env=keep | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(root)} | environment,
    )  # fmt: skip
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux says that the last writer is gone
            break
        if not piece:
            break
        written += piece
    os.close(master)
    return written.decode(), process.wait()


def check_codes(written: str) -> str:
    """What is on the first screen after the dashboard; the terminal must be left as it was found."""
    for on, off in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h")):
        assert on in written
        assert written.rindex(off) > written.rindex(on)
    assert {code for code in re.findall("\x1b[^a-zA-Z]*[a-zA-Z]", written) if code[-1] != "m"} <= {
        "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h", "\x1b[?7l", "\x1b[?7h", "\x1b[H", "\x1b[2J",
    }  # fmt: skip
    text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", written)
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", written[written.rindex("\x1b[?1049l") :])


@pytest.mark.parametrize("refresh", [0.5, 60])
def test_the_dashboard_in_a_terminal(refresh: float) -> None:
    """A note, such as the answer to Ctrl-C, does not wait for the next painting."""
    written, code = in_terminal("", refresh=refresh)
    left = check_codes(written)
    assert code == 0
    during = written[: written.rindex("\x1b[?1049l")]
    assert during.count("\x1b[H") >= 2
    assert "note: from [elsewhere]␛[2J" in during
    assert "Ctrl-C saves and stops" in during
    rows = left.split("\r\n")
    assert [cell_len(row) for row in rows[:23]] == [80] * 23
    assert rows.count("charrnn: note: from [elsewhere]␛[2J") == 1
    assert "  charrnn sample 'checkpoints/a run' --prompt '␛" not in left
    assert "  charrnn evaluate 'checkpoints/a run' OTHER.txt" in rows
    assert "step 100 of 100" in left
    assert "finished" in left


@pytest.mark.parametrize("last", ["raise KeyboardInterrupt", "sys.exit(3)", "1 / 0"])
def test_the_terminal_is_restored_whatever_happens(last: str) -> None:
    written, code = in_terminal(last, 60, 20)
    left = check_codes(written)
    assert code != 0
    assert "it writes now" in left
    assert "Best:" not in left


def test_no_color_is_respected_and_a_dumb_terminal_gets_lines() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", in_terminal("", NO_COLOR="1")[0])
    assert "\x1b" not in in_terminal("", TERM="dumb")[0]


# Lines


def test_plain_lines_are_few_and_have_no_codes() -> None:
    stream = io.StringIO()
    with screen.training_view(stream) as show:
        assert isinstance(show, lines.PlainLines)
        for event in events(steps=1000):
            show(event)
    written = stream.getvalue()
    rows = written.split("\n")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]", written)
    steps = [row for row in rows if " left  training " in row]
    assert 20 <= len(steps) <= 22
    assert all(row.endswith("  dropout 0.25") == (int(row.split()[1].replace(",", "")) > 500) for row in steps)
    assert sum(", perplexity " in row for row in rows) == 51
    assert sum("saved" in row for row in rows) == 1
    assert "note: a [note]" in rows
    assert "[red]markup[/red]" in written
    assert "Best: validation 1.647 nats/character = 2.376 bits/character, perplexity 5.19, at step 80." in rows
    assert "- train [longer]" in rows


def test_plain_lines_to_a_stream_of_another_encoding() -> None:
    raw = io.BytesIO()
    with screen.training_view(io.TextIOWrapper(raw, encoding="ascii")) as show:
        for event in events():
            show(event)
        assert rb"\u65e5" in raw.getvalue()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("used up", f"charrnn train 'my book.txt' MORE.txt --out '{RUN}-more' --cell gru"),
        ("interrupted", ["charrnn", "train", "my book.txt", "--out", RUN, "--resume"]),
        ("finished", f"charrnn train 'my book.txt' --out '{RUN}-longer' --cell gru --time 5m"),
        ("stopped early", f"charrnn train 'my book.txt' --out '{RUN}-smaller' --cell gru --hidden 64 --dropout 0.4"),
    ],
)
def test_the_commands_that_come_next_can_be_pasted(reason: str, words: list[str] | str) -> None:
    start, *_, end = events(reason=reason)
    assert isinstance(start, Start)
    assert isinstance(end, End)
    start = dataclasses.replace(start, options=("--cell", "gru"))
    if reason == "used up":
        end = dataclasses.replace(end, reason="finished", outlook=reason)
    sample = Sample(step=9, text="\n  'Tis \"$HOME\" `king`, he said")
    commands = lines.conclusion(end, start, sample, ["my book.txt"])[-3:]
    assert shlex.split(commands[0]) == ["charrnn", "sample", RUN, "--prompt", '"$HOME"']
    assert shlex.split(commands[1]) == ["charrnn", "evaluate", RUN, "OTHER.txt"]
    assert shlex.split(commands[2]) == (words if isinstance(words, list) else shlex.split(words))


@pytest.mark.parametrize("sample", [HOSTILE, "a\ud800b\u2028c\x85d"])
def test_json_lines(sample: str, capfd: pytest.CaptureFixture[str]) -> None:
    with screen.training_view(json=True) as show:
        for event in events(sample):
            show(event)
    captured = capfd.readouterr()
    rows = [json.loads(row) for row in captured.out.splitlines()]
    assert captured.err == ""
    assert [row["event"] for row in rows] == [event.event for event in events()]
    assert rows[1] == json.loads(json.dumps(next(itertools.islice(events(), 1, 2)).as_json()))
    assert rows[3]["gradient_norm"] is None
    assert {row["text"] for row in rows if row["event"] == "sample"} == {sample}


def test_quiet_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with screen.training_view(quiet=True) as show:
        for event in events():
            show(event)
    assert capfd.readouterr() == ("", "")


def test_errors_are_one_visible_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screen.error_line("no file [red]a\x1b[2J\nb\u2028c: try another")
    screen.warn(ValueError("hm"))
    assert capsys.readouterr() == ("", "charrnn: no file [red]a␛[2J b‹U+2028›c: try another\ncharrnn: note: hm\n")
    monkeypatch.setattr(sys, "stderr", None)
    screen.error_line("nobody listens")


def test_importing_the_screen_loads_no_rich() -> None:
    code = "import sys, charrnn.screen; sys.exit(any(name.split('.')[0] in ('rich', 'torch', 'numpy') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_the_picture_for_the_readme(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.svg"
    screen.dashboard_svg(events(), path, width=90)
    root = xml.etree.ElementTree.parse(path).getroot()
    text = "".join(root.itertext()).replace("\xa0", " ")
    assert root.tag.endswith("svg")
    for part in ("charrnn train book[1].txt", "validation", "it writes now", "[red]markup"):
        assert part in text


# Tables

FIGURES = {
    "run": "a[b]run", "level": "char", "tokens": 111_540, "characters": 111_540, "bytes": 111_999, "nats": 170_000.5,
    "nats_per_token": 1.524, "nats_per_character": 1.524, "perplexity": 4.59, "bits_per_character": 2.199,
    "bits_per_byte": 2.19, "unknown_characters": 0, "seconds": 1.25,
    "references": [("unigram", 4.8), ("uniform", 6.02), ("bzip2", 2.1), ("xz", math.nan), ("gzip", None)],
}  # fmt: skip


def test_evaluation_table_sorts_the_model_among_its_references() -> None:
    stream = io.StringIO()
    screen.evaluation_table(FIGURES, stream)
    rows = stream.getvalue().splitlines()
    assert rows[0] == "a[b]run  char level"
    assert rows[1].split() == ["bits", "per", "character", "2.199"]
    order = [row.split()[:2] for row in rows[rows.index("bits per character of the same text, for scale") + 1 :]]
    assert order == [["bzip2", "2.100"], [">", "this"], ["unigram", "4.800"], ["uniform", "6.020"], ["xz", "-"]]
    assert "\x1b" not in stream.getvalue()


def test_inspect_view_is_whole_in_a_pipe() -> None:
    stream = io.StringIO()
    digest, long = "0123456789abcdef" * 4, "x" * 150
    screen.inspect_view(
        {
            "run": "r[1]", "configuration": {"model": {"cell": "lstm", "dropout": 0.1, "epochs": None}},
            "parameters": [("layer 1: w_x", (64, 2048), 131_072), ("b", (), 1)], "vocabulary": {"symbols": "\n ab"},
            "text": {"name": long, "sha256": digest}, "best": {"validation_nats_per_character": 1.53456},
            "files": [("model.safetensors", 13_212_000)], "curve": [(1, None, 3.0), (2, 2.5, 2.8), (9, 2.0, 2.1)],
        },
        stream,
    )  # fmt: skip
    written = stream.getvalue()
    for part in (digest, long, "model: dropout   0.1\n", "64 × 2048", "131,073", r"'\n ab'", "1.5346", "12.6 MiB", "◆"):
        assert part in written
    assert "\x1b" not in written
    assert all(row == row.rstrip() for row in written.split("\n"))
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen.inspect_view({"run": "é", "curve": [(1, 2.0, 3.0)]}, ascii_stream)
    screen.inspect_view({}, io.StringIO())


def test_catalogue_table() -> None:
    stream = io.StringIO()
    rows = [{"name": "kieu", "title": "Truyện [Kiều]", "bytes": 2048}, {"name": "b", "title": None, "bytes": None}]
    screen.catalogue_table(rows, stream)
    head, _, first, second = [row.split() for row in stream.getvalue().strip().splitlines()]
    assert (head, first, second) == (["name", "title", "size"], ["kieu", "Truyện", "[Kiều]", "2.00", "KiB"], ["b"])


def test_download_is_silent_in_a_pipe_and_draws_in_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        with screen.download("a[b]\x1b", stream) as progress:
            progress(0, None)
            progress(512, 1024)
        assert bool(stream.getvalue()) == stream.isatty()
    assert "a[b]␛" in stream.getvalue()
