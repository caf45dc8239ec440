"""Other cells and connections than charrnn's, trained by its recipe, and a table: `python -m benchmarks.cells TEXT FORM FORM …`.

The forms are plain loops over steps, so their time says nothing, and their cost is counted instead: the products (a multiplication and an
addition) that a character takes, of which charrnn's lstm spares itself those of the first layer's input by a table. With --equal each
form is trained for as many steps as cost what --steps of an lstm of the same width cost. A line of JSON a trial is added to --log, and a
trial that stands there already is not run again.

    python -m benchmarks.cells tiny_shakespeare.txt lstm mogrifier multiplicative norm skip --steps 977 --seeds 1,2
    python -m benchmarks.cells tiny_shakespeare.txt lstm mogrifier multiplicative --steps 977 --equal
    python -m benchmarks.cells tiny_shakespeare.txt lstm tied --level word --vocab-size 2000 --embedding 128 --steps 600
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.forms import FORMS, Tried
from benchmarks.report import markdown
from benchmarks.texts import place
from charrnn import machine, recipe
from charrnn.batches import Batches
from charrnn.config import ModelConfig
from charrnn.corpus import Corpus, prepare
from charrnn.evaluation import score
from charrnn.kernels import bfloat16, summed_nats
from charrnn.model import detached
from charrnn.optim import Optimizer, clip, schedule
from charrnn.text import open_text

CLIP = 1.0
ASKED = ("text", "level", "vocab_size", "form", "hidden", "embedding", "batch", "window", "lr", "matrix_lr", "steps", "seed")


def train(model: Tried, corpus: Corpus, steps: int, rows: int, window: int, lr: float, matrix_lr: float, seed: int) -> float:
    """Train by charrnn's recipe; nats per character of the whole part held out, nan where training diverges."""
    part, precision = corpus.training, "bfloat16" if bfloat16() else "float32"
    batches = Batches(part.store, corpus.tokenizer.start, rows, window, seed)
    optimizer = Optimizer(model, lr, matrix_lr, precision=precision)
    dropout = recipe.dropout(steps / batches.steps_per_epoch, sum(p.numel() for p in model.parameters()) / part.tokens)
    generator, state = torch.Generator().manual_seed(seed + 1), model.zero_state(rows)
    for step in range(steps):
        read = batches[step]
        inputs, targets = torch.from_numpy(read.inputs), torch.from_numpy(read.targets)
        masks = model.masks(rows, dropout=dropout, weight_drop=0.0, generator=generator) if dropout else ()
        outputs, state = model.hidden(inputs, model.zero_state(rows) if read.fresh else state, masks=masks)
        loss = summed_nats(outputs.flatten(0, 1), model.output["w"], model.output["b"], targets.flatten()) / targets.numel()
        loss.backward()
        if not math.isfinite(float(loss.detach()) + clip(model.parameters(), CLIP)):
            return math.nan
        optimizer.step(schedule((step + 0.5) / steps))
        state = detached(state)
        if step % 100 == 99:
            print(f"step {step + 1}: {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    held = corpus.validation
    return (score(model, held.store) + held.unknown * corpus.tokenizer.unknown_nats) / held.characters


def trial(corpus: Corpus, form: str, asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What was asked and what came of it."""
    config = ModelConfig(hidden=asked.hidden, embedding=asked.embedding, vocabulary=corpus.tokenizer.size)

    def made(name: str) -> Tried:
        return Tried(FORMS[name], config, torch.Generator().manual_seed(seed))

    model, lr = made(form), asked.lr or recipe.lr("lstm", asked.hidden)
    matrix_lr = asked.matrix_lr or recipe.MATRIX_LR * lr
    cost = model.products() / made("lstm").products()
    steps = round(asked.steps / cost) if asked.equal else asked.steps
    about = dict(zip(ASKED, (corpus.name, asked.level, asked.vocab_size, form, asked.hidden, asked.embedding, asked.batch, asked.window,
                             lr, matrix_lr, steps, seed)))
    for line in lines(asked.log):
        if all(line[name] == about[name] for name in ASKED):
            return line
    before = time.process_time()
    nats = train(model, corpus, steps, asked.batch, asked.window, lr, matrix_lr, seed)
    line = about | {"parameters": sum(p.numel() for p in model.parameters()), "cost": round(cost, 3), "nats": round(nats, 4),
                    "cpu": round(time.process_time() - before, 1)}
    asked.log.parent.mkdir(parents=True, exist_ok=True)
    with asked.log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return line


def lines(log: Path) -> list[dict[str, Any]]:
    """The trials in a log."""
    return list(map(json.loads, log.read_text(encoding="utf-8").splitlines())) if log.exists() else []


def table(found: Iterable[Mapping[str, Any]]) -> str:
    """A row a form and number of steps: means over seeds."""
    rows = [["form", "parameters", "cost of a character", "rates", "steps", "nats per character", "least to largest", "seeds",
             "processor s"]]
    for _, same in itertools.groupby(found, key=lambda line: [line[name] for name in ASKED[:-1]]):
        group = list(same)
        nats, one = [line["nats"] for line in group], group[0]
        rows.append([one["form"], f"{one['parameters']:,}", f"{one['cost']:.2f}", f"{one['lr']:g}, {one['matrix_lr']:g}",
                     str(one["steps"]), f"{statistics.fmean(nats):.4f}", f"{min(nats):.4f} to {max(nats):.4f}" if len(nats) > 1 else "",
                     str(len(group)), f"{statistics.fmean(line['cpu'] for line in group):.0f}"])
    return markdown(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cells", description="Other cells than charrnn's, and a table.")
    parser.add_argument("text", help="a file, or its name in data/ or CHARRNN_CORPORA")
    parser.add_argument("forms", nargs="*", metavar="FORM", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--level", default="char", help="(default: %(default)s)")
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--equal", action="store_true", help="as many steps as cost what --steps of the lstm cost")
    parser.add_argument("--lr", type=float, help="AdamW's peak rate; default: the recipe's for an lstm")
    parser.add_argument("--matrix-lr", type=float, help=f"Muon's; default: {recipe.MATRIX_LR:g} times that")
    for name, default in (("steps", 977), ("hidden", 256), ("embedding", 64), ("batch", 32), ("window", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="with commas between them (default: %(default)s)")
    parser.add_argument("--log", type=Path, default=Path("build/cells.jsonl"), help="(default: %(default)s)")
    asked = parser.parse_intermixed_args(arguments)
    if wrong := set(asked.forms) - set(FORMS):
        parser.error(f"no form {', '.join(sorted(wrong))}: choose from {', '.join(FORMS)}")
    machine.prepare()
    torch.set_num_threads(asked.threads)
    corpus = prepare(open_text([place(asked.text)]), level=asked.level, vocab_size=asked.vocab_size)
    print(table([trial(corpus, form, asked, int(seed)) for form in asked.forms or FORMS for seed in asked.seeds.split(",")]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
