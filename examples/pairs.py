"""Tagging and translation as text: lines of `source⇥target` are learnt, and a new source is the prompt for its target.

    python examples/pairs.py [--steps N] [--out FOLDER]

Translation: numbers in English words into Vietnamese ones. Tagging: the part of speech of each word of a sentence. Both are many-to-many,
learnt by an ordinary language model that reads the source and goes on. What is measured are sources that it never saw. It works where the
source is short and the rules are few; a sentence of twenty words does not fit into one state, which is what attention was made for.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError
from charrnn.screen import error_line

HELD_OUT = 60
ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SỐ = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]
GRAMMAR = [("D", ["the", "a", "every", "some"]), ("A", ["old", "small", "green", "quiet"]), ("N", ["dog", "river", "child", "bird"]),
           ("V", ["sees", "follows", "likes", "finds"]), ("D", ["the", "a", "every", "some"]), ("N", ["house", "tree", "song", "road"])]


def english(n: int) -> str:
    """A number from 0 to 999 in words."""
    if n >= 100:
        return f"{ONES[n // 100]} hundred" + (f" {english(n % 100)}" if n % 100 else "")
    return ONES[n] if n < 20 else TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")


def vietnamese(n: int) -> str:
    """The same in Vietnamese: trăm, lẻ, mười, mươi; mốt and lăm after tens."""
    if n >= 100:
        rest = n % 100
        return f"{SỐ[n // 100]} trăm" + (f" lẻ {SỐ[rest]}" if 0 < rest < 10 else f" {vietnamese(rest)}" if rest else "")
    tens, ones = divmod(n, 10)
    if n < 10:
        return SỐ[n]
    head = "mười" if tens == 1 else f"{SỐ[tens]} mươi"
    last = "" if ones == 0 else "mốt" if ones == 1 and tens > 1 else "lăm" if ones == 5 else SỐ[ones]
    return f"{head} {last}".strip()


def translation() -> list[tuple[str, str]]:
    """All numbers up to 999."""
    return [(english(n), vietnamese(n)) for n in range(1000)]


def tagging() -> list[tuple[str, str]]:
    """Sentences of a small grammar, some without the adjective."""
    whole = [(" ".join(words), " ".join(tag for tag, _ in GRAMMAR)) for words in itertools.product(*(words for _, words in GRAMMAR))]
    short = GRAMMAR[:1] + GRAMMAR[2:]
    without = [(" ".join(words), " ".join(tag for tag, _ in short)) for words in itertools.product(*(words for _, words in short))]
    return whole[::7] + without[::2]


def measured(name: str, pairs: list[tuple[str, str]], run: Path, steps: int) -> None:
    """Learn all pairs but HELD_OUT, and say how many of those come out right, letter by letter."""
    random.Random(1).shuffle(pairs)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, f"{name}.txt")
        text.write_text("".join(f"{source}\t{target}\n" for source, target in pairs[HELD_OUT:]), encoding="utf-8")
        # A rule has no exceptions: with as much dropped as so many passes call for otherwise, 4 of 60 translations come out right.
        how = {"hidden": 128, "batch": 16, "window": 96, "valid": 0.05, "dropout": 0.1, "weight_drop": 0, "threads": 1}
        for _ in charrnn.train(text, run, steps=steps, resume=(run / MODEL).is_file(), **how):
            pass
    loaded, right = charrnn.load(run), 0
    for source, target in pairs[:HELD_OUT]:
        right += charrnn.generate(loaded, f"\n{source}\t", length=80, stop=("\n",), temperature=0) == target
    print(f"{name}: {right} of {HELD_OUT} new sources come out right, letter by letter")
    for source, _ in pairs[:3]:
        written = charrnn.generate(loaded, f"\n{source}\t", length=80, stop=("\n",), temperature=0)
        print(f"  {source} -> {written}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1500, help="updates of each; default 1500")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="where the runs are put: translation, tagging")
    given = parser.parse_args(arguments)
    try:
        measured("translation", translation(), given.out / "translation", given.steps)
        measured("tagging", tagging(), given.out / "tagging", given.steps)
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
