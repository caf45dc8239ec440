"""rnn, gru and lstm learn The Time Machine, character by character; then the textbook's setting, which shows memory, not skill.

    python examples/time_machine.py [--time TIME | --steps N] [--epochs N] [--out FOLDER]

The runs are kept: a second call only prints their figures again.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import charrnn
from charrnn import machine
from charrnn.checkpoint import MODEL
from charrnn.errors import CharRNNError, DataError
from charrnn.events import End, Step
from charrnn.fetch import fetch
from charrnn.screen import error_line
from charrnn.visible import on_one_line

CELLS = ("rnn", "gru", "lstm")
PROMPT = "time traveller"
# The textbook's setting, in charrnn's own options. Nothing is held out and nothing dropped: the text is to be learnt by heart.
TEXTBOOK = {"valid": 0.0, "hidden": 256, "window": 35, "batch": 32, "embedding": 0, "dropout": 0.0, "lr": 0.01}


def learn(text: Path, run: Path, console: Console, **settings: Any) -> End:
    """Train into `run`, or take it as it is; a run that was interrupted is finished. The last event."""
    there = (run / MODEL).is_file()
    if there:
        console.print(f"{run} is there already and is used again", soft_wrap=True)
    with console.status(f"{run.name}: getting ready") as status:
        for event in charrnn.train(text, run, resume=there, **settings):
            if isinstance(event, Step):
                status.update(f"{run.name}: step {event.step:,} of {event.steps:,}, {event.remaining:.0f} s left, "
                              f"training {event.training_nats_per_character:.3f} nats a character")
            elif isinstance(event, End):
                end = event
    if not there:
        console.print(f"{run.name}: {end.steps:,} steps in {end.seconds:.0f} s, {end.reason}")
    return end


def whole_book(text: Path, out: Path, console: Console, **settings: Any) -> None:
    """Each cell on the whole book but its last tenth, which it is measured on."""
    table = Table(title="The Time Machine, character level; held out: the last tenth", title_justify="left")
    for head in ("cell", "training\nperplexity", "held-out\nperplexity", "bits a\ncharacter", "characters\na second", "parameters"):
        table.add_column(head, justify="left" if head == "cell" else "right")
    for cell in CELLS:
        end = learn(text, out / f"time-machine-{cell}", console, cell=cell, **settings)
        table.add_row(cell, f"{math.exp(end.training_nats_per_character):.2f}", f"{math.exp(end.validation_nats_per_character):.2f}",
                      f"{end.validation_bits_per_character:.3f}", f"{end.characters_per_second:,.0f}", f"{end.parameters:,}")
    console.print(table)
    console.print("Training perplexity is what was paid on the way to the best model, with dropout; held-out perplexity is that model's.")
    for cell in CELLS:
        written = charrnn.generate(out / f"time-machine-{cell}", PROMPT, length=160, temperature=0.6, seed=1)
        console.print(f"\n{cell}: {PROMPT}{on_one_line(written)}", markup=False)


def textbook(book: Path, out: Path, console: Console, *, epochs: float, letters: int, **settings: Any) -> None:
    """Letters and space only, lowercase, the first `letters` of them learnt by heart; then half as many that follow."""
    plain = re.sub("[^A-Za-z]+", " ", book.read_text(encoding="utf-8")).lower()
    first, following = plain[:letters], plain[letters : letters * 3 // 2]
    text, other = (placed(book.with_name(f"time_machine_{name}_{len(part)}.txt"), part)
                   for name, part in (("first", first), ("next", following)))
    size = len(set(first))
    table = Table(title=f"The textbook's setting: the first {letters:,} letters, {epochs:g} epochs", title_justify="left")
    for head in ("cell", "training\nperplexity", f"perplexity on the\nnext {len(following):,} letters", "seconds"):
        table.add_column(head, justify="left" if head == "cell" else "right")
    worst = 0.0
    for cell in CELLS:
        run = out / f"time-machine-textbook-{cell}"
        end = learn(text, run, console, cell=cell, epochs=epochs, **settings)
        held_out, worst = charrnn.evaluate(run, other), max(worst, end.validation_perplexity)
        table.add_row(cell, f"{end.validation_perplexity:.3f}", f"{held_out['perplexity']:.1f}", f"{end.seconds:.0f}")
    table.add_row("blind guess", str(size), str(size), "", style="dim")
    console.print(table)
    if worst < 1.2:
        console.print("This is memory, not skill: they know by heart what they were trained on, and are lost on the very next page "
                      f"(a blind guess among {size} symbols has perplexity {size}).")
    else:
        console.print("Not learnt by heart yet: give it more --epochs.")
    for cell in CELLS:
        written = charrnn.generate(out / f"time-machine-textbook-{cell}", PROMPT, length=60, temperature=0)
        console.print(f"{cell}: {PROMPT}{written}", markup=False)


def placed(path: Path, text: str) -> Path:
    """The text at that path. DataError where another one is there."""
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise DataError(f"{path}: another text is there; move it away")
    path.write_text(text, encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--time", default="1m", help="for each cell, on the whole book; default 1m")
    length.add_argument("--steps", type=int, help="updates of each cell on the whole book, instead of --time")
    parser.add_argument("--epochs", type=float, default=100, help="of the textbook's setting; default 100")
    parser.add_argument("--letters", type=int, default=10_000, help="that the textbook's setting learns; default 10000")
    parser.add_argument("--hidden", type=int, help="hidden units; default: as charrnn chooses, 256 in the textbook's setting")
    parser.add_argument("--threads", type=int, help="processor threads; default: one a core")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the book is put")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="where the runs are put")
    given = parser.parse_args(arguments)
    more = {name: value for name in ("hidden", "threads") if (value := getattr(given, name)) is not None}
    console, began = Console(highlight=False), time.monotonic()
    machine.prepare()
    try:
        book = fetch("time-machine", given.data)
        whole_book(book, given.out, console, **({"steps": given.steps} if given.steps else {"time": given.time}), **more)
        console.print()
        textbook(book, given.out, console, epochs=given.epochs, letters=given.letters, **TEXTBOOK | more)
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    console.print(f"\n{time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
