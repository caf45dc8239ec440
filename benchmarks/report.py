"""Tables and the curve out of the lines that `benchmarks.quality` wrote: `python -m benchmarks.report LOG… [--svg FILE]`.

Runs that differ in nothing but the seed are one row: their mean, and beside it the least and the largest. The table is Markdown. The
curve shows nats per character against minutes for tiny Shakespeare at character level, with the peers' points on it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS, TEXT
from charrnn.config import seconds

Line = Mapping[str, Any]
SAME = ("text", "time", "level", "cell", "more")
FIGURES = ("nats", "bits", "dynamic_nats", "dynamic_bits", "windows_nats")


def more(line: Line) -> tuple[str, ...]:
    """The options that are not the table's columns."""
    pairs = zip(line["options"][::2], line["options"][1::2])
    return tuple(word for pair in pairs if pair[0] not in ("--time", "--level", "--cell", "--seed") for word in pair)


def grouped(lines: Iterable[Line]) -> list[list[Line]]:
    """The runs that differ in their seed alone; of two with the same seed the later one counts. Shorter times come first."""
    groups: dict[tuple[Any, ...], dict[int, Line]] = {}
    for line in lines:
        key = (*(line[name] for name in SAME[:-1]), more(line))
        groups.setdefault(key, {})[line["seed"]] = line
    return [list(groups[key].values()) for key in sorted(groups, key=lambda key: (key[0], seconds(key[1]), *map(str, key[2:])))]


def mean(group: Sequence[Line], name: str) -> float | None:
    """Over the seeds; None where it was not measured."""
    found = [line[name] for line in group if name in line]
    return statistics.fmean(found) if found else None


def shown(group: Sequence[Line], name: str) -> str:
    """The mean, and where there are several seeds the least and the largest."""
    found, middle = [line[name] for line in group if name in line], mean(group, name)
    if middle is None:
        return ""
    return f"{middle:.3f}" + (f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else "")


def table(lines: Iterable[Line]) -> str:
    """A row for each group of runs; the peers' below those of tiny Shakespeare."""
    rows = [["text", "time", "level", "cell", "model", "nats", "dynamic", "windows", "bits", "dynamic bits", "seconds", "seeds", ""]]
    groups = grouped(lines)
    for group in groups:
        one = group[-1]
        models = {f"{line['layers']} × {line['hidden']}" for line in group}
        rows.append([
            one["text"], one["time"], one["level"], one["cell"], ", ".join(sorted(models)), shown(group, "nats"),
            shown(group, "dynamic_nats"), shown(group, "windows_nats"), shown(group, "bits"), shown(group, "dynamic_bits"),
            f"{mean(group, 'seconds'):.0f}", ", ".join(str(line["seed"]) for line in group),
            " ".join((*more(one), *(["machine not quiet"] if any(line["disturbed"] for line in group) else [])))])
    out = markdown(rows)
    if any(group[0]["text"] == TEXT for group in groups):
        peers = [["for scale, on the last 111,540 characters of tiny Shakespeare", "nats", "minutes", ""]]
        peers += [[one.name, f"{one.nats:.3f}", "" if one.minutes is None else f"{one.minutes:.2g}", one.note] for one in PEERS]
        out += "\n\n" + markdown(peers)
    return out


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in each row but the first."""
    kept = [n for n in range(len(rows[0])) if len(rows) == 1 or any(row[n] for row in rows[1:])]
    lines = ["| " + " | ".join(row[n] for n in kept) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(kept), *lines[1:]])


def curves(lines: Iterable[Line]) -> dict[str, list[tuple[float, float]]]:
    """(minutes, nats) of the default recipe on tiny Shakespeare, by how it was scored."""
    groups = [group for group in grouped(lines)
              if (group[0]["text"], group[0]["level"], group[0]["cell"], more(group[0])) == (TEXT, "char", "lstm", ())]
    named = {"charrnn": "nats", "charrnn, learning as it is scored": "dynamic_nats"}
    return {title: points for title, name in named.items()
            if (points := [(seconds(group[0]["time"]) / 60, value) for group in groups if (value := mean(group, name)) is not None])}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Tables and a curve of benchmarks.quality's lines.")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="files of JSON lines")
    parser.add_argument("--svg", metavar="FILE", help="draw the curve into this file")
    options = parser.parse_args(arguments)
    lines = [json.loads(line) for log in options.logs for line in Path(log).read_text(encoding="utf-8").splitlines() if line]
    print(table(lines))
    if options.svg:
        from benchmarks.drawing import drawn

        found = curves(lines)
        if not found:
            raise SystemExit(f"report: no run of the default recipe on {TEXT} in {', '.join(options.logs)}: nothing to draw")
        Path(options.svg).write_text(drawn(found, PEERS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
