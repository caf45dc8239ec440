"""Measure models on texts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from charrnn import screen
from charrnn.commands.arguments import TEXTS, Json, RunArgument, Texts
from charrnn.config import CompareConfig, TrainingConfig
from charrnn.errors import UsageError
from charrnn.options import from_fields


@from_fields(CompareConfig)
def compare(texts: Annotated[list[str] | None, TEXTS] = None, *,
            recall: Annotated[bool, typer.Option("--recall", help="Measure memory alone: keys, noise for a known distance, recall. It "
                                                 "needs no text.")] = False,
            out: Annotated[str | None, typer.Option(help="Keep the runs in this folder.", metavar="FOLDER", show_default=False)] = None,
            json: Json = False, given: dict[str, Any]) -> None:
    """Train mlp, rnn, gru, lstm, a deep and a bidirectional lstm on one text; compare cost, quality, memory, and what textbooks say."""
    import tempfile

    from charrnn import machine
    from charrnn.corpus import prepare
    from charrnn.text import open_text

    config = CompareConfig(**given)
    if not texts and not recall:
        raise UsageError("compare needs a TEXT, or --recall")
    if recall and config.time is not None:
        raise UsageError("--recall counts steps: give --steps, not --time")
    corpus = prepare(open_text(texts), level="char", vocab_size=None, valid=0.1) if texts else None
    machine.prepare()
    from charrnn import comparison, kernels
    from charrnn import recall as memory

    kernels.use_threads(config.threads)
    if recall:
        rows = []
        for row in memory.recall(steps=config.steps, hidden=config.hidden, seed=config.seed):
            rows.append(row)
            if json:
                screen.json_line(row)
            else:
                screen.note(f"recall: {row['model']} done")
        if not json:
            screen.recall_table(rows, memory.KEYS, memory.SHOWN)
    if corpus is None:
        return
    with tempfile.TemporaryDirectory() as spare:
        found = {}
        told = {name: screen.Progress(f"training {name}", unit="steps") for name in comparison.KINDS}
        for one in comparison.compare(corpus, config, Path(out or spare), lambda name, done, steps: told[name](done, steps)):
            found[one.model] = one
            if json:
                screen.json_line(one.as_json())
            else:
                screen.note(f"{one.model}: {one.parameters:,} parameters, {one.steps:,} steps in {one.seconds:.0f} s")
        said = comparison.claims(found)
        if json:
            screen.json_line({"claims": [{"claim": claim, "measured": measured, "holds": holds} for claim, measured, holds in said]})
        else:
            screen.comparison_table([dataclasses.asdict(one) for one in found.values()], said)


def evaluate(run: RunArgument, texts: Texts, *,
             encoding: Annotated[str, typer.Option(help="How the text's bytes are to be read.", metavar="NAME")] = "utf-8",
             errors: Annotated[str, typer.Option(help="strict or replace: bytes that are not in that encoding.",
                                                 metavar="NAME")] = "strict",
             device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.", metavar="DEVICE")] = "cpu",
             threads: Annotated[int | None, typer.Option(help="Processor threads. Default: one a core.", metavar="N",
                                                         show_default=False)] = None,
             dynamic: Annotated[bool, typer.Option("--dynamic", help="Also let the model learn from the text as it reads it, each token "
                                                   "scored before it is learnt from.")] = False,
             json: Json = False) -> None:
    """Score texts with a trained model: perplexity, bits per character, bits per byte."""
    from charrnn import checkpoint, machine
    from charrnn.text import open_text

    settings = TrainingConfig(encoding=encoding, errors=errors, device=device, threads=threads)
    model = checkpoint.load(run)
    text = open_text(texts, encoding=settings.encoding, errors=settings.errors)
    machine.prepare()
    from charrnn import dynamic as learning
    from charrnn import evaluation, kernels

    kernels.use_threads(settings.threads)
    device = str(machine.device(settings.device))
    figures = learning.figures(model, text, device=device, progress=screen.Progress("dynamic evaluation")) if dynamic else (
        evaluation.evaluate(model, text, device=device))
    screen.warn(*text.notes)
    seen = figures.pop("seen")
    if seen > 0.02:
        screen.warn(f"about {100 * seen:.0f} % of this text stands in the training text: these are not held-out figures")
    if json:
        del figures["references"]
        screen.json_line(figures)
    else:
        screen.evaluation_table(figures)
