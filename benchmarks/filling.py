"""Gaps in held-out text, filled by a model that reads one way and by one that reads both, at equal parameters and equal steps.

    python -m benchmarks.filling TEXT [--steps 500] [--hidden 192] [--gaps 300] [--threads 1]

Trains both into a folder of its own, takes `--gaps` places of the part that neither has seen, takes one character out, then one word
of three letters or more, and counts how often the first candidate is what stood there. Beside them: what stands before alone, and what
both directions together predict for a character without weighing any.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import charrnn
from charrnn import machine
from charrnn.checkpoint import Run
from charrnn.config import FillingConfig
from charrnn.filling import fill
from charrnn.text import open_text
from charrnn.trace import read

LEFT, RIGHT = 200, 100  # characters around a gap
WORD = re.compile(r"(?<!\w)[^\W\d_]{3,12}(?!\w)")


def trained(text: Path, out: Path, **settings: object) -> Run:
    """A run, made unless it is there."""
    if not (out / "model.safetensors").is_file():
        for _ in charrnn.train(text, out, **settings):
            pass
    return charrnn.load(out)


def gaps(text: str, what: str, count: int, seed: int = 1) -> Iterator[tuple[str, str, str]]:
    """`count` places of a text as (left, missing, right)."""
    rng = np.random.default_rng(seed)
    spans = ([found.span() for found in WORD.finditer(text, LEFT, len(text) - RIGHT)] if what == "word" else
             [(at, at + 1) for at in range(LEFT, len(text) - RIGHT)])
    for place in rng.choice(len(spans), min(count, len(spans)), replace=False):
        begin, end = spans[place]
        yield text[begin - LEFT : begin], text[begin:end], text[end : end + RIGHT]


def accuracy(run: Run, places: Sequence[tuple[str, str, str]], *, right: bool = True, width: int = 128) -> tuple[float, float]:
    """The share of gaps whose first candidate is right, and milliseconds a gap (of the processor)."""
    config, hits, began = FillingConfig(gap="\x01", count=1, width=width), 0, time.process_time()
    for before, missing, after in places:
        best = fill(run, before + "\x01" * len(missing) + (after if right else ""), config)[0]
        hits += best.fills[0] == missing
    return hits / len(places), 1000 * (time.process_time() - began) / len(places)


def predicted(run: Run, places: Sequence[tuple[str, str, str]]) -> tuple[float, float]:
    """The share of characters that a model of both directions holds the most likely ones given all others, and milliseconds each."""
    hits, began = 0, time.process_time()
    for before, missing, after in places:
        best = read(run, before + missing + after, alternatives=1).likely[len(before), 0]  # its own token never tells on itself
        hits += run.tokenizer.symbol(int(best)) == missing
    return hits / len(places), 1000 * (time.process_time() - began) / len(places)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=192, help="of the model that reads one way")
    parser.add_argument("--gaps", type=int, default=300)
    parser.add_argument("--width", type=int, default=128, help="candidates followed side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the runs are put, or are already")
    given = parser.parse_args(arguments)
    machine.prepare()
    out = given.out or Path(tempfile.mkdtemp())
    one = trained(given.text, out / "one", steps=given.steps, hidden=given.hidden, threads=given.threads)
    from charrnn.recipe import of_size

    width = of_size(type(one.config)(**{**one.config.as_json(), "bidirectional": True}), one.config.parameters()).hidden
    both = trained(given.text, out / "both", steps=given.steps, hidden=width, threads=given.threads, bidirectional=True)
    text = "".join(open_text([given.text]).pieces())
    held_out = text[-one.text["validation_characters"] :]
    print("| model | parameters | one character | one word | ms a character, a word |\n|---|---|---|---|---|")
    places = {what: list(gaps(held_out, what, given.gaps)) for what in ("character", "word")}
    for name, run, right in (("one direction, what stands before alone", one, False), ("one direction, weighing candidates", one, True),
                             ("both directions, weighing candidates", both, True)):
        found = [accuracy(run, places[what], right=right, width=given.width) for what in ("character", "word")]
        print(f"| {name} | {run.config.parameters():,} | {100 * found[0][0]:.1f} % | {100 * found[1][0]:.1f} % | "
              f"{found[0][1]:.0f}, {found[1][1]:.0f} |", flush=True)
    share, cost = predicted(both, places["character"])
    print(f"| both directions, p(character \\| all others) | {both.config.parameters():,} | {100 * share:.1f} % | | {cost:.0f} |")
    print(f"\n{len(places['character'])} characters, {len(places['word'])} words of the last {len(held_out):,} characters of "
          f"{given.text.name}; lstm 1 x {one.config.hidden} and 1 x {width}, {given.steps} steps each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
