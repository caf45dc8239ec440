"""New names from a list of names, one a line: the line's end is the end symbol, and the one before it the start.

    python examples/names.py [--names FILE] [--count 1000] [--steps N] [--out FOLDER]

Some hundred names are little to learn from: the model finds how names begin and end and which letters go together, and knows no more.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.screen import error_line

NAMES = Path(__file__).parents[1] / "data" / "names.txt"


def learn(names: set[str], run: Path, steps: int) -> None:
    """Train on the names in no order: of a list in that of the alphabet the last letters would be held out."""
    mixed = sorted(names)
    random.Random(1).shuffle(mixed)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "names.txt")
        text.write_text("\n".join([*mixed, ""]), encoding="utf-8")
        there = (run / MODEL).is_file()
        for _ in charrnn.train(text, run, cell="gru", hidden=64, steps=steps, batch=16, window=32, threads=1, resume=there):
            pass


def invent(run: Path, known: set[str], count: int) -> tuple[list[str], int, int]:
    """So many different names that are not in the list; how many were written for them, and how many of these stand in the list."""
    loaded = charrnn.load(run)
    found: dict[str, None] = {}
    written = listed = 0
    for seed in range(20 * count):
        name = charrnn.generate(loaded, "\n", length=20, stop=("\n",), temperature=0.7, seed=seed)
        written += bool(name)
        listed += name in known
        if name and name not in known:
            found[name] = None
        if len(found) == count:
            break
    return list(found), written, listed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--names", type=Path, default=NAMES, help="a list of names, one a line")
    parser.add_argument("--count", type=int, default=30, help="how many new ones; default 30")
    parser.add_argument("--steps", type=int, default=1500, help="updates; default 1500")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/names"), help="where the run is put")
    given = parser.parse_args(arguments)
    try:
        known = set(filter(None, given.names.read_text(encoding="utf-8").split("\n")))
        learn(known, given.out, given.steps)
        new, written, listed = invent(given.out, known, given.count)
        print(", ".join(new))
        print(f"\n{len(new):,} names that are not among the {len(known):,} of the list. Of {written:,} written, {listed:,} stand in it, "
              f"and {written - listed - len(new):,} came again.")
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
