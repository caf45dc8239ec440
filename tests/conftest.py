"""What several tests need: texts, small runs, and a cache folder of their own."""

import fcntl
import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("CHARRNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def corpus_file(name: str) -> Path:
    """A real text, or a skip with the reason."""
    places = [os.environ.get("CHARRNN_CORPORA"), Path(__file__).parents[2] / "shared" / "corpora"]
    for place in filter(None, places):
        if (Path(place) / name).is_file():
            return Path(place) / name
    pytest.skip(f"{name} is not at hand: name its folder in CHARRNN_CORPORA")


def cases(few: int, many: int) -> int:
    """How many cases of a kind to try: `many` under `make torture`."""
    return many if os.environ.get("CHARRNN_TORTURE") else few


def found(row: int, text: str) -> None:
    """Tell what was tried and found, in a line; under `make torture` also in the report that CHARRNN_TORTURE names, sorted by row."""
    print(f"{row}: {text}", flush=True)
    if report := os.environ.get("CHARRNN_TORTURE"):
        with open(report, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two processes write it
            file.seek(0)
            lines = sorted([*file.read().splitlines()[2:], f"| {row} | {text} |"], key=lambda line: int(line.split("|")[1]))
            file.truncate(0)
            file.write("\n".join(["| # | what was tried and found |", "|---|---|", *lines, ""]))


BY_CASES = {"test_disk.py": (3, "calls of a write that fail, locks and modes"),
            "test_container.py": (6, "hostile files in the place of a run"),
            "test_resume_files.py": (6, "hostile states in the place of one to resume"), "test_bad_input.py": (12, "bad texts and options"),
            "test_permissions.py": (12, "what may not be read or written"), "test_divergence.py": (13, "infinities and NaN")}


def pytest_terminal_summary(terminalreporter):
    """Under `make torture` the tests whose cases are a row of their own are counted."""
    for name, (row, what) in BY_CASES.items() if os.environ.get("CHARRNN_TORTURE") else ():
        passed, failed = (sum(report.when == "call" and f"/{name}::" in report.nodeid for report in terminalreporter.getreports(outcome))
                          for outcome in ("passed", "failed"))
        if passed or failed:
            found(row, f"{what}: {passed} tests passed, {failed} failed")


VERSE = """Trăm năm trong cõi người ta,
Chữ tài chữ mệnh khéo là ghét nhau.
Trải qua một cuộc bể dâu,
Những điều trông thấy mà đau đớn lòng.
"""


@pytest.fixture
def small_text(tmp_path) -> Path:
    """2,000 characters or so, of which the last tenth is held out."""
    path = tmp_path / "verse.txt"
    path.write_text(VERSE * 18, encoding="utf-8")
    return path
