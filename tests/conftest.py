"""What several tests need: texts, small runs, and a cache folder of their own."""

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


def found(text: str) -> None:
    """Tell what was tried and found, in a line: of the report that CHARRNN_TORTURE names, under `make torture`."""
    print(text)
    if report := os.environ.get("CHARRNN_TORTURE"):
        with open(report, "a", encoding="utf-8") as file:
            file.write(f"- {text}\n")


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
