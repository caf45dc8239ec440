"""New names from a list of names, one a line: the line's end is the end symbol, and the one before it the start.

    python examples/names.py [--names FILE] [--count N] [--steps N] [--out FOLDER]

Some hundred names are little to learn from: the model finds how names begin and end and which letters go together, and knows no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.screen import error_line

NAMES = Path(__file__).parents[1] / "data" / "names.txt"


def invent(run: Path, known: set[str], count: int) -> list[str]:
    """So many different names that are not in the list."""
    loaded = charrnn.load(run)
    found: dict[str, None] = {}
    for seed in range(20 * count):
        name = charrnn.generate(loaded, "\n", length=20, stop=("\n",), temperature=0.9, seed=seed)
        if name and name not in known:
            found[name] = None
        if len(found) == count:
            break
    return list(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--names", type=Path, default=NAMES, help="a list of names, one a line")
    parser.add_argument("--count", type=int, default=30, help="how many new ones; default 30")
    parser.add_argument("--steps", type=int, default=1500, help="updates; default 1500")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/names"), help="where the run is put")
    given = parser.parse_args(arguments)
    try:
        if not (given.out / MODEL).is_file():
            for _ in charrnn.train(given.names, given.out, cell="gru", hidden=64, steps=given.steps, batch=16, window=32, threads=1):
                pass
        known = set(given.names.read_text(encoding="utf-8").split("\n"))
        new = invent(given.out, known, given.count)
        print(f"{len(new)} names that are not among the {len(known):,} of the list:")
        print(", ".join(new))
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
