"""Whole commands: how soon they start, how long they score and read, and the memory they take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.results import Row
from benchmarks.shapes import Settings, Shape
from benchmarks.sides import ROOT, Spread, environment, facts
from charrnn import checkpoint
from charrnn.tokens import CharTokenizer

MB = 1e6
READ_TARGETS = {"char": ("≥", 20.0), "byte": ("≥", 20.0), "word": ("≥", 5.0)}


def charrnn(*arguments: str) -> list[str]:
    """The command as it is installed beside this Python, else as a module."""
    script = Path(sys.executable).with_name("charrnn")
    return [str(script), *arguments] if script.is_file() else [sys.executable, "-m", "charrnn", *arguments]


def until(command: list[str], seen: bytes | None, cache: Path) -> float:
    """Seconds until a line with `seen` stands on a command's stdout (b"": any byte; None: until it ends); then it is stopped."""
    env = {**environment(), "CHARRNN_CACHE": str(cache)}
    began = time.perf_counter()
    with subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        if seen is None:
            process.stdout.read()
            there = process.wait() == 0
        else:
            there = False
            while not there and (line := process.stdout.readline() if seen else process.stdout.read(1)):
                there = seen in line
        seconds = time.perf_counter() - began
        process.kill()
        process.communicate()
    if not there:
        raise RuntimeError(f"{' '.join(command[1:])} ended with code {process.returncode} and not as expected; its words are above")
    return seconds


def start(settings: Settings, text: Path, folder: Path) -> Iterator[Row]:
    """Each command `start_rounds` times, in turn; a training's first run on a text has to read it, the next one finds its tokens."""
    model = ours.run(Shape("lstm", 256), folder / "random")
    (folder / "random").mkdir()
    checkpoint.save_model(model)
    commands: dict[str, tuple[list[str], bytes | None, float | None]] = {
        "help": (charrnn("--help"), None, 0.35), "sample": (charrnn("sample", str(folder / "random"), "--length", "1"), b"", 0.6),
        "train": (charrnn("train", str(text), "--json", "--out"), b'"event": "step"', 4.0),
        "import torch": ([sys.executable, "-c", "import torch"], None, None)}
    names = {"help": "charrnn --help", "sample": "charrnn sample, first characters", "train": "charrnn train, first step",
             "again": "charrnn train, first step, text known", "import torch": "import torch, for scale"}
    seconds: dict[str, list[float]] = {}
    for number in range(settings.start_rounds):
        cache = folder / f"cache{number}"
        for key in settings.starts:
            command, seen, _ = commands[key]
            for name in ("train", "again") if key == "train" else (key,):
                out = [str(folder / f"{name}{number}")] if key == "train" else []
                seconds.setdefault(name, []).append(until(command + out, seen, cache))
    for name, values in seconds.items():
        target = commands["train" if name == "again" else name][2]
        yield Row("start", names[name], Spread.of(values).median, "s", ("≤", target) if target else None, None, Spread.of(values), "s",
                  data={"seconds": values})


def memory(settings: Settings) -> Iterator[Row]:
    """Resident memory after 1,000 characters and at the end."""
    found = facts("sample_memory", shape=settings.memory, tokens=settings.memory_tokens)
    grown = (found["end"] - found["start"]) / MB
    yield Row("memory", f"{settings.memory_tokens:,} characters, lstm {settings.memory.size}", grown, "MB more", ("≤", 1.0),
              note=f"{found['start'] / MB:.1f} MB after 1,000 characters, {found['end'] / MB:.1f} MB at the end", data=found)


def score(settings: Settings, text: Path, folder: Path) -> Iterator[Row]:
    """A text scored by the command; and on a model that was trained a little, rows against a single pass."""
    content = text.read_text(encoding="utf-8")
    path = folder / "untrained"
    path.mkdir()
    checkpoint.save_model(ours.run(settings.score, path, "before", CharTokenizer.build([content])))
    env = {**environment(), "CHARRNN_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    said = subprocess.run(charrnn("evaluate", str(path), str(text), "--json"), env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    seconds, figures = time.perf_counter() - began, json.loads(said)
    whole = figures["characters"] >= 1_000_000
    yield Row("score", f"charrnn evaluate, {figures['characters']:,} characters, {settings.score.cell} {settings.score.size}", seconds, "s",
              ("≤", 60.0) if whole else None, note=f"whole process; {figures['seconds']:.3g} s after its start",
              data={name: value for name, value in figures.items() if name != "run"})
    trained = folder / "trained"
    subprocess.run(charrnn("train", str(text), "--out", str(trained), "--steps", str(settings.trained_steps), "--hidden", "128",
                           "--batch", "16", "--valid", "0.02", "--json"), env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = facts("score_passes", run=str(trained), path=str(text), characters=settings.passes)
    yield Row("score", f"rows against a single pass, {settings.passes:,} characters", 100 * abs(found["rows"] / found["single"] - 1),
              "% apart", ("≤", 0.1), note=f"{found['rows_seconds']:.3g} s against {found['single_seconds']:.3g} s; lstm H 128 trained "
              f"{settings.trained_steps} steps, {found['single'] / found['tokens']:.3g} nats a character", data=found)


def read(settings: Settings, text: Path, folder: Path) -> Iterator[Row]:
    """A text made ready at each level, and again out of the store."""
    size, cache = text.stat().st_size, folder / "read"
    for level in settings.levels:
        first, again = (facts("read_text", path=str(text), level=level, cache=str(cache)) for _ in range(2))
        yield Row("read", level, size / MB / first["seconds"], "MB/s", READ_TARGETS.get(level),
                  note=f"{size / MB:.3g} MB, {first['tokens']:,} tokens, {first['seconds']:.3g} s; from the store {again['seconds']:.3g} s",
                  data={"first": first, "again": again, "bytes": size})


def large(settings: Settings, text: Path, folder: Path) -> Iterator[Row]:
    """The most memory that training on a large file takes; needs twice the file's size on disk."""
    source, path = text.read_bytes(), folder / "large.txt"
    with open(path, "wb") as file:
        for _ in range(-(-settings.large_bytes // len(source))):
            file.write(source)
    env = {**environment(), "CHARRNN_CACHE": str(folder / "large")}
    began = time.perf_counter()
    command = charrnn("train", str(path), "--json", "--time", "20s", "--out", str(folder / "of large"))
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        first = 0.0
        while line := process.stdout.readline():
            first = first or (time.perf_counter() - began if b'"event": "step"' in line else 0.0)
            if first and time.perf_counter() - began > first + 10:  # the last evaluation reads 100 MB: no need to wait for it
                process.send_signal(signal.SIGKILL)
                break
        most = _most_memory(process)
    yield Row("large", f"{path.stat().st_size / MB:,.0f} MB, charrnn train", most / MB, "MB at most", ("≤", 1_500.0),
              note=f"first step after {first:.3g} s", data={"first_step": first, "most": most})


def _most_memory(process: subprocess.Popen[Any]) -> int:
    """Of a child that ends now, in bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
