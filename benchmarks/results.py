"""What was measured, row by row, and the table that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.sides import Spread


@dataclass(frozen=True)
class Row:
    """One figure. `target` ("≥" or "≤", value) is what it is held to; `limit`: the share of the machine's limit that charrnn reaches."""

    part: str
    name: str
    figure: float
    unit: str
    target: tuple[str, float] | None = None
    plain: Spread | None = None
    ours: Spread | None = None
    spread_unit: str = ""
    limit: float | None = None
    note: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        sign, value = self.target
        return self.figure >= value if sign == "≥" else self.figure <= value

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


TITLES = {
    "same": "The two sides compute the same (float64, losses and weights over several updates)",
    "machine": "The machine's limits",
    "train": "Training: one step (forward, backward, clipping, AdamW), against plain PyTorch",
    "busy": "Training with one other process busy on a core, against its own quiet step",
    "sample": "Sampling, against the plain loop",
    "start": "Starting: whole processes",
    "memory": "Memory while sampling",
    "score": "Scoring",
    "read": "Reading and encoding",
    "large": "Training on a large file",
}


HEADS = ("what", "plain PyTorch", "charrnn", "figure", "target", "", "of the limit", "note")


def written(value: float) -> str:
    """Three digits, thousands apart."""
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(value: Spread | None, unit: str) -> str:
    if value is None:
        return ""
    range_ = f" ({written(value.low)}–{written(value.high)})" if value.turns > 1 else ""
    return f"{written(value.median)} {unit}{range_}"


def cells(row: Row) -> tuple[str, ...]:
    """A row as the table has it, under HEADS."""
    target = f"{row.target[0]} {written(row.target[1])}" if row.target else ""
    met = {None: "", True: "[green]met[/]", False: "[red]not met[/]"}[row.met]
    limit = "" if row.limit is None else f"{100 * row.limit:.0f} %"
    return (row.name, spread(row.plain, row.spread_unit), spread(row.ours, row.spread_unit), f"{written(row.figure)} {row.unit}", target,
            met, limit, row.note)


def show(about: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """The tables on stdout, as wide as they need to be where that is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=190)
    for name, value in about.items():
        if name == "disturbed":
            continue
        console.print(f"[dim]{name:>10}[/]  {value}", soft_wrap=True)
    if about.get("disturbed"):
        console.print("[bold red]Other processes were using this machine: the ratios below say little.[/]")
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.part, []).append(row)
    for part, group in parts.items():
        table = Table(title=TITLES.get(part, part), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        lines = [cells(row) for row in group]
        shown = [n for n in range(len(HEADS)) if any(line[n] for line in lines)]
        for n in shown:
            table.add_column(HEADS[n], justify="left" if HEADS[n] in ("what", "note") else "right", no_wrap=HEADS[n] != "note")
        for line in lines:
            table.add_row(*(line[n] for n in shown))
        console.print(table)
    judged = [row for row in (row for group in parts.values() for row in group) if row.met is not None]
    console.print(f"{sum(bool(row.met) for row in judged)} of {len(judged)} targets met")
