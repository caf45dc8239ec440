"""Trials of settings, one after another, and a table of what they reached: `python -m benchmarks.search TEXT SETTING SETTING …`.

A setting is a text: options of `charrnn train`, and constants of charrnn's modules as MODULE.NAME=VALUE, such as
'--hidden 256 --lr 0.01' or 'optim.MOMENTUM=0.9 recipe.MATRIX_LR=2'. An empty one, '', is the recipe as it is. Each is run with each of
--seeds and each of --lengths, in a process of its own. A line of JSON a trial is added to --log, and a trial that stands there already
is not run again: an interrupted search goes on where it was. (After a change of charrnn's code, take another log.)

    python -m benchmarks.search tiny_shakespeare.txt '' '--lr 0.01' 'optim.ITERATIONS=5' --lengths 500,2000 --seeds 1,2
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import itertools
import json
import math
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import charrnn
from benchmarks.report import markdown
from benchmarks.texts import place
from charrnn import machine
from charrnn.config import TrainingConfig, option_name
from charrnn.events import End, Evaluation

ASKED = ("text", "digest", "setting", "length", "seed")


def parted(setting: str) -> tuple[list[str], dict[str, Any]]:
    """The options in a setting, and its constants: {"optim.MOMENTUM": 0.9}."""
    words, constants = [], {}
    for word in shlex.split(setting):
        name, equals, value = word.partition("=")
        if equals and not word.startswith("-"):
            constants[name] = ast.literal_eval(value)
        else:
            words.append(word)
    return words, constants


def put(constants: Mapping[str, Any]) -> None:
    """Set constants of charrnn's modules for this process. SystemExit for one that there is not."""
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        try:
            found = importlib.import_module(f"charrnn.{module}")
            getattr(found, constant)
        except (ImportError, AttributeError):
            raise SystemExit(f"search: charrnn has no constant {name}") from None
        setattr(found, constant, value)


def typed(words: Sequence[str]) -> dict[str, Any]:
    """Options as settings of TrainingConfig. SystemExit for one that there is not."""
    hints, found = typing.get_type_hints(TrainingConfig), {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        if name not in hints or option_name(name) != option:
            raise SystemExit(f"search: charrnn train has no option {option} that is a setting")
        kind = next(one for one in (*typing.get_args(hints[name]), hints[name]) if one is not type(None))
        found[name] = kind(value)
    return found


def trial(text: str, setting: str, length: str, seed: int) -> dict[str, Any]:
    """Train in this process; the best and the last validation loss in nats per character, and what it took."""
    words, constants = parted(setting)
    put(constants)
    machine.prepare()
    long = {"steps": int(length)} if length.isdecimal() else {"time": length}
    began, before = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="charrnn-search-") as folder:
        events = list(charrnn.train(text, f"{folder}/run", seed=seed, **long, **typed(words)))
    losses = [event.validation_nats_per_character for event in events if isinstance(event, Evaluation)]
    end = events[-1]
    assert isinstance(end, End)
    return {"best": min(losses), "last": losses[-1], "steps": end.steps, "parameters": end.parameters,
            "cpu": round(time.process_time() - before, 1), "seconds": round(time.monotonic() - began, 1)}


def search(text: Path, settings: Sequence[str], lengths: Sequence[str], seeds: Sequence[int], log: Path) -> list[dict[str, Any]]:
    """Every setting at every length with every seed, each in its own process; what is in the log already is taken from there."""
    digest = hashlib.sha256(text.read_bytes()).hexdigest()[:16]
    known = {}
    if log.exists():
        for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            known[tuple(line[name] for name in ASKED)] = line
    log.parent.mkdir(parents=True, exist_ok=True)
    out = []
    for length, seed, setting in itertools.product(lengths, seeds, settings):
        asked = dict(zip(ASKED, (text.name, digest, setting, length, seed)))
        if tuple(asked.values()) not in known:
            one = json.dumps([str(text), setting, length, seed])
            done = subprocess.run([sys.executable, "-m", "benchmarks.search", "--one", one], stdout=subprocess.PIPE, text=True)
            if done.returncode:  # a setting that diverges is a finding as well
                print(f"search: {setting!r} ended with exit code {done.returncode}", file=sys.stderr)
            found = json.loads(done.stdout) if done.returncode == 0 else {"best": math.inf, "last": math.inf}
            known[tuple(asked.values())] = asked | found
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asked | found, ensure_ascii=False) + "\n")
        out.append(known[tuple(asked.values())])
        print(f"{setting!r} {length} seed {seed}: {out[-1]['best']:.4f}", file=sys.stderr, flush=True)
    return out


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """A row a setting and length, the best first: the mean over seeds of the best loss, its range, and the mean of the processor time."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["length"], line["setting"]), []).append(line)
    rows = [["length", "setting", "best nats per character", "least to largest", "last", "seeds", "processor s"]]
    for (length, setting), group in sorted(groups.items(), key=lambda item: (item[0][0], statistics.fmean(one["best"] for one in item[1]))):
        best, last = ([one[name] for one in group] for name in ("best", "last"))
        rows.append([length, f"`{setting}`" if setting else "the recipe", f"{statistics.fmean(best):.4f}",
                     f"{min(best):.4f} to {max(best):.4f}" if len(best) > 1 else "", f"{statistics.fmean(last):.4f}",
                     str(len(group)), f"{statistics.fmean(one.get('cpu', 0.0) for one in group):.0f}"])
    return markdown(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description="Trials of settings, and a table.")
    parser.add_argument("text", nargs="?", help="a file, or its name in data/ or CHARRNN_CORPORA")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="'' is the recipe as it is")
    parser.add_argument("--lengths", default="2000", help="steps or times, with commas between them (default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="with commas between them (default: %(default)s)")
    parser.add_argument("--log", default="build/search.jsonl", help="(default: %(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_intermixed_args([f" {word}" if word.startswith("--") and " " in word else word for word in given])
    if options.one:
        print(json.dumps(trial(*json.loads(options.one))))
        return 0
    if not options.text:
        parser.error("no text is given")
    lines = search(place(options.text), [word.strip() for word in options.settings] or [""], options.lengths.split(","),
                   [int(seed) for seed in options.seeds.split(",")], Path(options.log))
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
