"""Tunes in ABC notation: seven old ones are learnt, and a new one is written from its title on.

    python examples/music.py [--title TITLE] [--steps N] [--out FOLDER] > tune.abc

Seven tunes can only be learnt by heart: what is new is how it joins their bars. A folder of some hundred tunes (--tunes) gives it keys,
repeats and endings; long form, a theme that comes back, is beyond a model of this size. Many programs play the result: abc2midi, EasyABC.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.screen import error_line

TUNES = Path(__file__).parents[1] / "data" / "tunes.abc"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tunes", type=Path, default=TUNES, help="tunes in ABC, a blank line after each")
    parser.add_argument("--title", default="A new tune", help="of the tune to be written")
    parser.add_argument("--steps", type=int, default=600, help="updates; default 600")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another tune")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/music"), help="where the run is put")
    given = parser.parse_args(arguments)
    head = f"X:1\nT:{given.title}\nM:4/4\nL:1/4\nK:C\n"
    try:
        if not (given.out / MODEL).is_file():
            for _ in charrnn.train(given.tunes, given.out, hidden=96, steps=given.steps, batch=4, window=64, threads=1):
                pass
        tune = charrnn.generate(given.out, head, length=400, stop=("\n\n",), temperature=0.9, seed=given.seed)
        print(head + tune)
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
