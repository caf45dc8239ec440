"""Sentiment by two models: one learns praise, one complaint, and a new sentence belongs to the one that it surprises less.

    python examples/sentiment.py [SENTENCE…] [--steps N] [--out FOLDER]

This is many-to-one: a whole sentence in, one answer out. The sentences are made from a few patterns, so the task is easy; those that are
measured were held back, so it is not memory of a sentence. Of words that it never saw it knows nothing: it takes "What a waste of time."
for praise. Real reviews need real reviews: with some thousand of each kind the same commands do the work (`charrnn train good.txt`,
`charrnn train bad.txt`, then compare `charrnn evaluate`), but a classifier made for the purpose does it better.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.checkpoint import MODEL, Run
from charrnn.errors import CharRNNError
from charrnn.screen import error_line
from charrnn.trace import read

THINGS = ("film", "book", "soup", "room", "concert", "journey", "garden", "story", "bread", "play", "song", "hotel")
WORDS = {"good": ("wonderful", "lovely", "charming", "delightful", "excellent", "a joy", "splendid", "warm and kind"),
         "bad": ("awful", "dreadful", "boring", "disappointing", "terrible", "a mess", "dull", "cold and rude")}
ENDS = {"good": ("I would come again.", "We smiled all day.", "I thank everyone.", "It made us happy."),
        "bad": ("I want my money back.", "We left early.", "Never again.", "It made us angry.")}


def sentences(kind: str) -> list[str]:
    """All that the patterns give, in an order that looks like none."""
    made = [f"The {thing} was {word}. {end}" for thing, word, end in itertools.product(THINGS, WORDS[kind], ENDS[kind])]
    random.Random(1).shuffle(made)
    return made


def surprise(run: Run, sentence: str) -> float:
    """Nats that a run pays for a sentence."""
    return float(read(run, sentence + "\n").nats.sum())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sentences", nargs="*", help="to be judged")
    parser.add_argument("--steps", type=int, default=200, help="updates of each model; default 200")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="where the runs are put: sentiment-good, sentiment-bad")
    given = parser.parse_args(arguments)
    runs = {}
    try:
        for kind in WORDS:
            run = given.out / f"sentiment-{kind}"
            there = (run / MODEL).is_file()
            with tempfile.TemporaryDirectory() as folder:
                text = Path(folder, f"{kind}.txt")
                text.write_text("\n".join(sentences(kind)[:-60]) + "\n", encoding="utf-8")
                for _ in charrnn.train(text, run, cell="gru", hidden=48, steps=given.steps, batch=8, threads=1, resume=there):
                    pass
            runs[kind] = charrnn.load(run)
        judge = lambda sentence: min(runs, key=lambda kind: surprise(runs[kind], sentence))
        held_out = [(kind, sentence) for kind in WORDS for sentence in sentences(kind)[-60:]]
        right = sum(judge(sentence) == kind for kind, sentence in held_out)
        print(f"{right} of {len(held_out)} held-out sentences told right; a blind guess would have {len(held_out) // 2}")
        for sentence in given.sentences:
            print(f"{judge(sentence)}: {sentence}")
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
