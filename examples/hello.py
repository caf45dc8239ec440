"""rnn, gru and lstm learn to spell "hello": what goes in, what is to come out, and how sure the trained model is at each step.

    python examples/hello.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import charrnn
from charrnn.checkpoint import MODEL, Run
from charrnn.errors import CharRNNError
from charrnn.events import End
from charrnn.runtime import Runtime
from charrnn.sampling import softmax
from charrnn.screen import error_line

TEXT = Path(__file__).parents[1] / "data" / "hello.txt"
CELLS = ("rnn", "gru", "lstm")


def learn(cell: str, folder: Path, console: Console) -> Run:
    """The run of a cell, trained if it is not there yet; a run that was interrupted is finished."""
    there = (folder / MODEL).is_file()
    for event in charrnn.train(TEXT, folder, cell=cell, threads=1, resume=there):  # it is too small to share out
        if isinstance(event, End) and not there:
            console.print(f"{cell}: learnt in {event.steps:,} updates and {event.seconds:.1f} s, into {folder}", soft_wrap=True)
    if there:
        console.print(f"{cell}: {folder} is there already and is used again", soft_wrap=True)
    return charrnn.load(folder)


def steps(run: Run, text: str) -> Table:
    """A row a step: the input and its one-hot vector, the target, and the model's probability of each symbol."""
    tokenizer, model = run.tokenizer, Runtime(run.config, run.weights)
    names = [tokenizer.symbol(token) for token in range(tokenizer.size + 1)]
    letters = range(tokenizer.size - 1)  # the last is the escape
    table = Table(title=f"{run.config.cell}, {run.config.hidden} hidden units", title_justify="left", caption_justify="left",
                  caption="X_t has a place for each letter, then one for symbols never seen and one for the start.")
    for head in ("t", "input", "X_t, one-hot", "target", *(f"p({names[token]})" for token in letters)):
        table.add_column(head, justify="left" if head in ("input", "target") else "right", no_wrap=True)
    state = model.zero_state(1)
    tokens = [tokenizer.start, *tokenizer.encode(text).tolist()]
    for t, (token, target) in enumerate(pairwise(tokens)):
        logits, state = model.step(np.array([token]), state)
        p = softmax(logits)[0]
        one_hot = " ".join("1" if place == token else "0" for place in range(len(names)))
        table.add_row(str(t), names[token], one_hot, names[target],
                      *(f"[bold]{p[other]:.4f}[/]" if other == target else f"{p[other]:.4f}" for other in letters))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="where the runs are put: hello-rnn, hello-gru, hello-lstm")
    out = parser.parse_args(arguments).out
    console = Console(highlight=False)
    text = TEXT.read_text(encoding="utf-8")
    try:
        for cell in CELLS:
            run = learn(cell, out / f"hello-{cell}", console)
            console.print(steps(run, text))
            written = charrnn.generate(run, text[0], length=len(text) - 1, temperature=0)
            console.print(f'After "{text[0]}" it writes "{written}".\n')
    except CharRNNError as error:
        error_line(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
