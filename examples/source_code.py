"""Source code: Python's own json and email packages are learnt, and a function is written from its first word on.

    python examples/source_code.py [FILE…] [--time TIME | --steps N] [--out FOLDER]

A small model learns indents, brackets that close soon, and the names it saw often. Lines look right, and 55 of 100 parse by themselves,
where 65 of the sources' own do (docstrings and calls over several lines do not); a function does nothing of use.
"""

from __future__ import annotations

import argparse
import ast
import email
import json
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.screen import error_line


def parses(line: str) -> bool:
    """Whether Python accepts a line by itself, or as the head of a block."""
    for wanted in (line, f"{line} pass", f"if 1: pass\n{line} pass", f"try: pass\n{line} pass"):
        try:
            ast.parse(textwrap.dedent(wanted))
            return True
        except (SyntaxError, ValueError):
            continue
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="source files; default: Python's json and email packages")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--time", default="2m", help="default 2m")
    length.add_argument("--steps", type=int, help="updates, instead of --time")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/code"), help="where the run is put")
    given = parser.parse_args(arguments)
    files = given.files or sorted(path for package in (json, email) for path in Path(package.__file__).parent.glob("*.py"))
    how = {"steps": given.steps} if given.steps else {"time": given.time}
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder, "code.txt")
            text.write_text("\n".join(path.read_text(encoding="utf-8") for path in files), encoding="utf-8")
            for _ in charrnn.train(text, given.out, resume=(given.out / MODEL).is_file(), **how):
                pass
        written = "def " + charrnn.generate(given.out, "\n\ndef ", length=1000, temperature=0.6, seed=1)
        lines = [line for line in written.split("\n")[:-1] if line.strip()]
        print(written)
        print(f"\n{sum(map(parses, lines))} of {len(lines)} lines parse by themselves.")
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
