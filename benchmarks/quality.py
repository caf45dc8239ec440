"""What the default recipe reaches in a given time, on text held out: `python -m benchmarks.quality`.

Each run is `charrnn train TEXT --time …` in a process of its own, one after another. Then the held-out tenth is scored whole with the
state carried, with dynamic evaluation, and at character level also as nanoGPT scores (windows of 256 characters, each from a zero state).
A line of JSON for each run is added to --log; `python -m benchmarks.report` makes tables and the curve of such lines.

    python -m benchmarks.quality                                                  tiny Shakespeare, 1m and 3m, seed 1
    python -m benchmarks.quality --times 3m --levels char,byte,subword,word       levels at equal time; likewise --cells, --seeds
    python -m benchmarks.quality --windows RUN                                    nothing is trained: a run in nanoGPT's windows
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.about import describe, others
from benchmarks.bench import QUIET
from benchmarks.report import table
from benchmarks.texts import NAME, place


def trained(text: Path, run: Path, options: Sequence[str]) -> dict[str, Any]:
    """Train by the command; its last event, its first one as `start`, and the seconds from start to end."""
    began = time.monotonic()
    command = [sys.executable, "-m", "charrnn", "train", str(text), "--out", str(run), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"quality: {shlex.join(command)} ended with exit code {done.returncode}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return {**events[-1], "start": events[0], "wall": time.monotonic() - began}


def scores(run: Path, text: Path, dynamic: bool = True) -> dict[str, Any]:
    """The held-out part of the text that the run was trained on, scored in each way; figures per character."""
    from charrnn import checkpoint, evaluation
    from charrnn import dynamic as learning
    from charrnn.corpus import tokenized
    from charrnn.text import open_text

    model = checkpoint.load(run)
    whole = "".join(open_text([text]).pieces())
    if len(whole) != model.text["characters"]:
        raise SystemExit(f"quality: {run} was not trained on {text}")
    held = whole[len(whole) - model.text["validation_characters"] :] if model.text["held_out"] else whole
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "held.txt"
        path.write_bytes(held.encode())
        part = open_text([path])
        found = learning.figures(model, part) if dynamic else evaluation.evaluate(model, part)
        named = {"characters": found["characters"], "nats": found["nats_per_character"], "bits": found["bits_per_character"],
                 "unknown": found["unknown_characters"]}
        if dynamic:
            named |= {"dynamic_nats": found["dynamic_nats_per_character"], "dynamic_bits": found["dynamic_bits_per_character"],
                      "dynamic_seconds": round(found["dynamic_seconds"], 1)}
        if model.tokenizer.level == "char" and not model.config.bidirectional:
            from benchmarks import windows

            store = tokenized(part, model.tokenizer).training.store
            nats, count = windows.score(learning.loaded(model, "cpu"), store.read(0, store.count))
            named["windows_nats"] = nats / count
    return named


def measured(text: Path, options: Sequence[str], folder: Path, dynamic: bool = True) -> dict[str, Any]:
    """One run, trained and scored: a line of the log."""
    run = folder / f"run{time.monotonic_ns()}"
    end = trained(text, run, options)
    start = end["start"]
    return {
        "text": text.name, "options": list(options), "seed": int(dict(itertools.pairwise(options)).get("--seed", 1)),
        **{name: start[name] for name in ("level", "cell", "layers", "hidden", "vocabulary", "batch", "window", "threads", "parameters")},
        **{name: end[name] for name in ("reason", "steps", "best_step")}, "seconds": round(end["wall"], 1),
        **scores(run, text, dynamic), "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def settings(options: argparse.Namespace) -> Iterator[tuple[Path, str, list[str]]]:
    """What is to be run: the text, the time, and the options of `charrnn train`."""
    chosen = (options.texts, options.times, options.levels, options.cells, options.seeds)
    for text, given, level, cell, seed in itertools.product(*(one.split(",") for one in chosen)):
        yield place(text), given, ["--time", given, "--level", level, "--cell", cell, "--seed", seed, *shlex.split(options.more)]


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parsed(given)
    if options.windows:
        found = scores(Path(options.windows), place(options.texts.split(",")[0]), dynamic=False)
        if "windows_nats" not in found:
            raise SystemExit("quality: --windows is for models of characters that read from left to right")
        print(f"{found['nats']:.4f} nats per character with the state carried, {found['windows_nats']:.4f} in windows of 256")
        return 0
    about = {**describe(given), "command": shlex.join(["python -m benchmarks.quality", *given])}
    log, lines = Path(options.log), []
    log.parent.mkdir(parents=True, exist_ok=True)
    for text, asked, words in settings(options):
        busy = others()
        with tempfile.TemporaryDirectory(prefix="charrnn-quality-") as folder:
            line = {"time": asked, **measured(text, words, Path(options.keep or folder), not options.static),
                    "machine": about["machine"], "versions": about["versions"], "disturbed": max(busy, others()) > QUIET}
        if not all(math.isfinite(value) for value in line.values() if isinstance(value, float)):
            raise SystemExit(f"quality: a figure of {shlex.join(words)} is not a number")
        lines.append(line)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{text.name} {shlex.join(words)}: {line['nats']:.4f} nats", file=sys.stderr, flush=True)
    print(f"{about['command']}\n{about['machine']}; {about['versions']}\n")
    print(table(lines))
    return 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="Held-out quality of the default recipe.",
                                     epilog="Lists have commas between their items: each is run with each.")
    parser.add_argument("--texts", default=NAME, help="files, or names in data/ and CHARRNN_CORPORA (default: %(default)s)")
    parser.add_argument("--times", default="1m,3m", help="as --time of charrnn train (default: %(default)s)")
    parser.add_argument("--levels", default="char", help="char, byte, subword, word (default: %(default)s)")
    parser.add_argument("--cells", default="lstm", help="lstm, gru, rnn, mlp (default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="(default: %(default)s)")
    parser.add_argument("--more", default="", metavar="OPTIONS", help="further options of charrnn train, such as --more '--threads 1'")
    parser.add_argument("--static", action="store_true", help="no dynamic evaluation")
    parser.add_argument("--keep", metavar="FOLDER", help="where the runs stay (default: nowhere)")
    parser.add_argument("--log", default="build/quality.jsonl", help="gets a line of JSON a run (default: %(default)s)")
    parser.add_argument("--windows", metavar="RUN", help="score a run in nanoGPT's windows, and end; --texts names its text")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
