"""Texts coloured by a value of each token, units that were found, and how far the gradient reaches, on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from charrnn import curve
from charrnn.drawings import Points, falling, named, places
from charrnn.visible import figure, on_one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from charrnn.trace import Reading

Colour = tuple[int, int, int]

SURPRISE = 6.0  # nats that have the strongest colour
RISING: tuple[Colour, ...] = ((254, 240, 170), (253, 190, 80), (236, 112, 20), (150, 20, 20))
FALLING: tuple[Colour, ...] = ((205, 225, 250), (130, 180, 235), (50, 115, 200), (15, 50, 130))
OPEN: tuple[Colour, ...] = ((215, 240, 210), (140, 205, 140), (45, 140, 75), (0, 75, 40))
FAINT = 0.08  # shares below it have no colour
FAR = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


def shade(share: float, colours: Sequence[Colour] = RISING) -> Colour | None:
    """The colour of a share from 0 to 1; None where it is next to nothing."""
    if not share >= FAINT:
        return None
    place = min(1.0, share) * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return tuple(round(a + (b - a) * (place - low)) for a, b in zip(colours[low], colours[low + 1]))  # type: ignore[return-value]


def style(value: float, most: float, signed: bool = False, colours: Sequence[Colour] = RISING) -> str:
    """A value's style for rich: its colour behind black or white letters."""
    share = value / most if most else 0.0
    colour = shade(abs(share), FALLING if signed and share < 0 else colours)
    if colour is None:
        return ""
    r, g, b = colour
    ink = "black" if 299 * r + 587 * g + 114 * b > 140_000 else "white"
    return f"{ink} on rgb({r},{g},{b})"


def coloured_text(reading: Reading, values: Sequence[float], *, kind: str, name: str, stream: TextIO | None = None) -> None:
    """Print a text, each character coloured by its value, and a legend; in a pipe a line a token: value, tab, text.

    `kind`: surprise (the values are nats; those of several tokens that make one character are added up), unit, or gate.
    """
    from rich.text import Text

    from charrnn.tables import _console, _show

    stream = stream if stream is not None else sys.stdout
    console = _console(stream)
    if console.color_system is None or console.no_color:
        for text, first, last in reading.spans():
            value = sum(values[first:last]) if kind == "surprise" else values[last - 1]
            stream.write(f"{value:.3f}\t{visible(text, keep='').replace(chr(9), '␉')}\n")
        return
    signed, colours = kind == "unit", OPEN if kind == "gate" else RISING
    most = SURPRISE if kind == "surprise" else max(map(abs, values)) or 1.0 if signed else max(values)
    low = -most if signed else min(values) if kind == "gate" else 0.0  # the mean of a gate moves little: its range is the scale

    def painted(value: float) -> str:
        return style(value if signed else value - low, most if signed else most - low, signed, colours)

    out = Text()
    for text, first, last in reading.spans():
        value = sum(values[first:last]) if kind == "surprise" else values[last - 1]
        out.append(visible(text, keep="\n").replace("\n", "␊"), painted(value))
        out.append("\n" * text.count("\n"))
    legend = Text(f"\n{name}  ")
    for place in range(9):
        value = low + (most - low) * place / 8
        legend.append(f" {value:.2g} ", painted(value) or "dim")
    parts: list[RenderableType] = [out, legend]
    if kind == "surprise":
        total, unit = float(reading.nats.sum()), "pseudo-nats" if reading.back else "nats"
        parts.append(Text(f"{total:,.1f} {unit} for {len(reading.ids):,} tokens: {figure(total / len(reading.ids))} each", "dim"))
    _show(parts, stream)


def units_table(found: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print which units track what: the scores are those of the half that did not choose them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from charrnn.tables import _show

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for head in ("tracks", "unit", "correlation", "told right", "threshold"):
        table.add_column(head, justify="left" if head in ("tracks", "unit") else "right")
    before = ""
    for row in found:
        accuracy, edge = row.get("accuracy"), row.get("threshold")
        table.add_row("" if row["tracks"] == before else row["tracks"], Text(row["unit"], "cyan"), f"{row['correlation']:+.2f}",
                      "" if accuracy is None else f"{100 * accuracy:.0f} %", "" if edge is None else f"{edge:+.2f}")
        before = row["tracks"]
    _show([table], stream)


def gradient_view(found: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print how much of the gradient reaches how far, as a table and a curve of each layer's states."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from charrnn.tables import _show

    far = [k for k in FAR if k <= found["reach"]]
    scale, both = found["scale"], any("tower" in one for one in found["curves"])
    table = Table(box=box.SIMPLE_HEAD, padding=0, header_style="bold")  # eleven columns within 80
    table.add_column("steps away" if both else "steps back", no_wrap=True)
    for k in far:
        table.add_column(str(k), justify="right", no_wrap=True)
    for one in found["curves"]:
        table.add_row(named(one), *(_share(one["shares"][k]) for k in far))
        if scale < 1:
            table.add_row("  clipped", *(_share(scale * one["shares"][k]) for k in far))
    where = "the states k before it (forward), k after it (backward)" if both else "the state at t − k"
    parts: list[RenderableType] = [
        Text(on_one_line(found["run"]), "bold"),
        Text(f"{found['cell']}: share of the gradient of the loss at t that reaches {where}, {places(found['rows'])}"), table]
    for one in found["curves"]:
        with_it = "; ◇ clipped" if scale < 1 else ""
        parts += [Text(f"{named(one)} state: powers of ten, by steps{with_it}", "bold"),
                  _Picture(falling(one), [falling(one, scale)[k] for k in far if k < len(falling(one, scale))] if scale < 1 else [])]
    norm, clip = found["gradient_norm"], found["clip"]
    clipped = (f"below --clip {clip:g}: nothing is clipped." if scale == 1 else
               f"above --clip {clip:g}: clipping takes it all times {figure(scale)}, near and far alike. What has vanished stays so.")
    parts.append(Text(f"\nThe gradient of an update on these tokens has the norm {figure(norm)}, {clipped}"))
    _show(parts, stream)


def _share(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}" if value > 0 else "0"


class _Picture:
    """A curve, and marks of another one, in the width there is."""

    def __init__(self, points: Points, marks: Points) -> None:
        self.points, self.marks = points, marks

    def __rich_console__(self, console: Any, options: Any) -> Iterable[RenderableType]:
        from rich.text import Text

        from charrnn.picture import coloured

        for row in curve.draw(self.points, self.marks, min(78, options.max_width), 12, only_ascii=options.ascii_only, whole=True):
            plain = [(text.replace("◆", "◇").replace("@", "o"), "validation" if kind == "best" else kind) for text, kind in row]
            line: Text = Text.assemble(*coloured(plain))
            line.rstrip()
            yield line
