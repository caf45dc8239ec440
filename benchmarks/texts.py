"""A text to read and score: a real one where it is at hand, else a drawn one."""

from __future__ import annotations

import os
import string
from pathlib import Path

import numpy as np

NAME = "tiny_shakespeare.txt"


def place(name: str) -> Path:
    """A file by its path, or by its name in data/ or the folder in CHARRNN_CORPORA. SystemExit where it is not."""
    places = [Path(name), Path("data", name), Path(os.environ.get("CHARRNN_CORPORA", "data"), name)]
    found = next((one for one in places if one.is_file()), None)
    if found is None:
        raise SystemExit(f"benchmarks: {name}: no such text here, in data/ or in the folder that CHARRNN_CORPORA names")
    return found


def text(characters: int, given: str | None = None) -> tuple[str, str]:
    """So many characters, a shorter text repeated; and where they are from: the file given, `charrnn fetch tiny-shakespeare`'s in data/,
    the folder in CHARRNN_CORPORA, or drawn words."""
    places = [Path(given)] if given else [Path("data", NAME), Path(os.environ.get("CHARRNN_CORPORA", "data"), NAME)]
    found = next((place for place in places if place.is_file()), None)
    if given and found is None:
        raise SystemExit(f"bench: {given}: no such file")
    whole, origin = (found.read_text(encoding="utf-8"), found.name) if found else (drawn(min(characters, 2_000_000)), "drawn words")
    return (whole * -(-characters // len(whole)))[:characters], origin


def drawn(characters: int) -> str:
    """Lines of words of which some are far more common than others; always the same."""
    rng = np.random.default_rng(5)
    letters = np.array(list(string.ascii_lowercase))
    share = 1.0 / np.arange(1, len(letters) + 1)
    words = ["".join(rng.choice(letters, size, p=share / share.sum())) for size in rng.integers(1, 11, 5_000)]
    common = 1.0 / np.arange(1, len(words) + 1)
    order = rng.choice(len(words), characters // 3 + 16, p=common / common.sum())
    ends = rng.choice(np.array([" ", ", ", ". ", "\n", "; ", "? "]), len(order), p=[0.8, 0.06, 0.04, 0.08, 0.01, 0.01])
    pieces = [word + end for word, end in zip((words[n] for n in order), ends)]
    return "".join(pieces)[:characters]
