"""Measures charrnn against plain PyTorch and against the machine's own limits: `python -m benchmarks.bench`.

Each side is a process of its own with default settings, and they take turns (A B A B …), idle while it is another's. What is shown is
the median of the turns' medians, with the least and the largest turn, and the ratio of two such medians. Nothing is tuned for one side:
plain PyTorch is written as its documentation shows it, charrnn does what its commands do. The optimizer is torch's AdamW on both sides,
as it comes on the plain one and fused as charrnn asks for it on the other; the rows "own optimizer" have charrnn's (Muon and AdamW) in
its own trainer, reading its batches. GFLOP/s are those that torch.nn's modules need, so a side that saves work can show more than the
product that is its limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import speed, whole
from benchmarks.about import describe, load, others
from benchmarks.results import Row, show
from benchmarks.shapes import QUICK, Settings
from benchmarks.texts import text

PARTS = ("same", "machine", "train", "busy", "sample", "start", "memory", "score", "read")
QUIET = 0.15  # cores that other processes may use without spoiling the figures
MORE = ("large",)  # only where it is asked for: minutes, and two gigabytes of disk


@dataclass
class Bench:
    """The parts of a run, which share a folder and a text."""

    settings: Settings
    folder: Path
    given: str | None = None
    origin: str = field(default="", init=False)

    def text(self, characters: int) -> Path:
        path = self.folder / f"text{characters}.txt"
        if not path.exists():
            content, self.origin = text(characters, self.given)
            path.write_text(content, encoding="utf-8")
        return path

    def rows(self, part: str) -> Iterator[Row]:
        """The rows of one part, as they are measured."""
        settings, folder = self.settings, self.folder / part
        folder.mkdir()
        quiet: dict[str, Callable[[Settings], Iterator[Row]]] = {
            "same": speed.same, "machine": speed.machine, "train": speed.train, "busy": speed.beside, "sample": speed.sample,
            "memory": whole.memory}
        files: dict[str, tuple[Callable[[Settings, Path, Path], Iterator[Row]], int]] = {
            "start": (whole.start, settings.score_characters), "score": (whole.score, settings.score_characters),
            "read": (whole.read, settings.read_bytes), "large": (whole.large, min(settings.large_bytes, settings.read_bytes))}
        if part in quiet:
            yield from quiet[part](settings)
        else:
            measure, characters = files[part]
            yield from measure(settings, self.text(characters), folder)


def main(arguments: Sequence[str] | None = None, settings: Settings | None = None) -> int:
    """Measure, show, and write the JSON; `settings` are for tests. 0 whether or not the targets are met: it is a measurement."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parsed(given)
    settings = settings or (QUICK if options.quick else Settings())
    about, before = describe(given), others()
    if before > QUIET:
        print(f"bench: {before:.1f} cores are busy with something else; ratios will say little", file=sys.stderr)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="charrnn-bench-") as folder:
        bench = Bench(settings, Path(folder), options.text)
        for part in options.only:
            began = time.monotonic()
            for row in bench.rows(part):
                rows.append(row)
                print(f"{row.part}: {row.name}: {row.figure:.4g} {row.unit}", file=sys.stderr, flush=True)
            seconds[part] = round(time.monotonic() - began, 1)
    after = others()
    about |= {"load": f"{about['load']} before, {load()} after; cores that others used: {before:.2f} before, {after:.2f} after",
              "took": f"{sum(seconds.values()):.0f} s", "disturbed": max(before, after) > QUIET}
    about |= {"text": bench.origin} if bench.origin else {}
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"about": about, "quick": options.quick, "settings": settings.as_json(), "seconds": seconds,
              "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(about, rows)
    return 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="charrnn against plain PyTorch.")
    parser.add_argument("--quick", action="store_true", help="fewer shapes, fewer turns: under three minutes on two cores")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between them: {', '.join(PARTS + MORE)}")
    parser.add_argument("--json", default="build/bench.json", help="where the JSON goes (default: %(default)s)")
    parser.add_argument("--text", metavar="FILE",
                        help="the text to read and score, repeated or cut to length (default: tiny Shakespeare where it is at hand)")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := sorted(set(options.only) - set(PARTS + MORE)):
        parser.error(f"--only: no such part: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
