"""Models beside each other: the tables of `charrnn compare`, within 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from charrnn.tables import _show
from charrnn.visible import count, figure, visible

Row = Mapping[str, Any]


def comparison_table(rows: Sequence[Row], claims: Sequence[tuple[str, str, bool | None]], stream: TextIO | None = None) -> None:
    """Print what `comparison.Compared` holds of each model, a sample of each, and what textbooks say beside what was measured."""
    from rich.table import Table
    from rich.text import Text

    contexts = list(rows[0]["by_context"])
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("model", "units", "weights", "time", "char/s", "bits", *(f"{size}" for size in contexts)):
        table.add_column(head, justify="left" if head == "model" else "right", no_wrap=True, header_style="dim")
    for row in rows:
        table.add_row(row["model"], f"{row['layers']}x{row['hidden']}", count(row["parameters"]), f"{row['seconds']:.0f} s",
                      count(row["characters_per_second"]), figure(row["bits_per_character"]) + ("*" if row["bidirectional"] else ""),
                      *(figure(row["by_context"][size], 2) for size in contexts))
    notes = "bits: held-out, a character, the state carried; then with the state at zero and exactly so many characters given."
    if any(row["bidirectional"] for row in rows):
        notes += " *pseudo-bits: each character predicted from both sides, so many characters given on each."
    samples = Table.grid(padding=(0, 2, 0, 0))
    samples.add_column(style="bold", no_wrap=True)
    samples.add_column()
    for row in rows:
        text = visible(row["sample"], keep="")
        samples.add_row(row["model"], Text(text[:130] + ("…" if len(text) > 130 else "")))
    said = Table.grid(padding=(0, 2, 0, 0))
    said.add_column(no_wrap=True)
    said.add_column()
    for claim, measured, holds in claims:
        verdict = Text("cannot be told", "dim") if holds is None else Text("holds", "green") if holds else Text("does not hold", "yellow")
        said.add_row(verdict, Text.assemble((claim, "bold"), f": {measured}"))
    _show([table, Text(notes, "dim"), Text("\nthey write (both ways: fills [what stands in brackets])", "bold"), samples,
           Text("\nwhat textbooks say, and what was measured here", "bold"), said], stream)


def recall_table(rows: Sequence[Row], keys: int, shown: int, stream: TextIO | None = None) -> None:
    """Print how much each model recalled, by distance."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("model", "units", "weights", "steps", *map(str, rows[0]["accuracy"])):
        table.add_column(head, justify="left" if head == "model" else "right", no_wrap=True, header_style="dim")
    for row in rows:
        table.add_row(row["model"], str(row["hidden"]), count(row["parameters"]), f"{row['steps']:,}",
                      *(f"{100 * share:.0f} %" for share in row["accuracy"].values()))
    note = f"{shown} keys of {keys} recalled after so many tokens of noise; a guess is right in {100 / keys:.1f} %"
    _show([table, Text(note, "dim")], stream)
