"""Tunes in ABC notation: seven old ones are learnt, and a new one is written from its title on.

    python examples/music.py [--title TITLE] [--steps N] [--temperature X] [--out FOLDER] > tune.abc

Seven tunes can only be learnt by heart, and after 600 steps, at temperature 0.9, it writes one of them down. What is new is how it joins
their bars, when it knows them less well and dares more: after 200 steps, at 1.2, three quarters still stand in the tunes, and 9 bars of 10
have their four beats; after 100 a quarter does, and half of the bars. It says how much is copied. A folder of some hundred tunes (--tunes,
with more steps) would give it more to choose from. Many programs play the result: abc2midi, EasyABC.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.novelty import COPIED, Copies
from charrnn.screen import error_line
from charrnn.text import open_text

TUNES = Path(__file__).parents[1] / "data" / "tunes.abc"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tunes", type=Path, default=TUNES, help="tunes in ABC, a blank line after each")
    parser.add_argument("--title", default="A new tune", help="of the tune to be written")
    parser.add_argument("--steps", type=int, default=200, help="updates; default 200")
    parser.add_argument("--temperature", type=float, default=1.2, help="higher dares more; default 1.2")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another tune")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/music"), help="where the run is put")
    given = parser.parse_args(arguments)
    head = f"X:1\nT:{given.title}\nM:4/4\nL:1/4\nK:C\n"
    try:
        there = (given.out / MODEL).is_file()
        for _ in charrnn.train(given.tunes, given.out, hidden=96, steps=given.steps, batch=4, window=64, threads=1, resume=there):
            pass
        tune = charrnn.generate(given.out, head, length=400, stop=("\n\n",), temperature=given.temperature, seed=given.seed)
        print(head + tune)
        copied = Copies("".join(open_text([given.tunes]).pieces())).of(tune)
        print(f"{100 * copied['copied_share']:.0f} % of it stands in the tunes, in runs of {COPIED} characters or more", file=sys.stderr)
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
