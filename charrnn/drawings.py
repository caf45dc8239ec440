"""Pictures as SVG, in colours that the page's style sheet names: curves, and each cell as a drawing whose parts a script can move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from charrnn import curve

Points = Sequence[tuple[float, float]]

WIDE, HIGH = 720, 250  # below the legend
LEFT, RIGHT, BOTTOM = 62, 16, 40


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element; `_` in an attribute's name stands for -, a last one is dropped."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items())
    return f"<{name}{told}>{content}</{name}>"


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    """Text at a place."""
    return tag("text", escape(text), x=f"{x:g}", y=f"{y:g}", text_anchor=anchor, class_=kind)


def picture(content: str, wide: float, high: float, title: str, kind: str = "") -> str:
    """The SVG itself; `title` is what a screen reader says."""
    return tag("svg", tag("title", escape(title)) + content, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {wide:g} {high:g}",
               role="img", class_=kind)


def chart(series: Mapping[str, Points], *, title: str, below: str, beside: str, powers: bool = False, marks: Points = (),
          dashed: Sequence[Points] = ()) -> str:
    """Lines with axes, each with its name in a legend; `marks` are dots. With `powers` y is a logarithm to base 10. `dashed` has a second
    line for each, in the colour of the first."""
    points = [point for line in (*series.values(), *dashed) for point in line] + list(marks)
    if not points:
        return ""
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    x1 = x1 if x1 > x0 else x0 + 1
    y0, y1 = min(y for _, y in points), max(y for _, y in points)
    pad = 0.05 * (y1 - y0) or 0.5
    y0, y1 = y0 - pad, y1 + pad
    named, top = legend(list(series))
    high = top + HIGH

    def across(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (WIDE - LEFT - RIGHT)

    def up(y: float) -> float:
        return top + (y1 - y) / (y1 - y0) * (HIGH - BOTTOM)

    parts = [named]
    for y, label in curve.ticks(y0, y1, 6, whole=powers):
        parts += [tag("path", d=f"M{LEFT} {up(y):.1f}H{WIDE - RIGHT}", class_="grid"),
                  power(LEFT - 8, up(y) + 4, round(y)) if powers else words(LEFT - 8, up(y) + 4, label, "tick", "end")]
    for x, label in curve.ticks(x0, x1, 9, whole=True):
        parts.append(words(across(x), high - BOTTOM + 18, label, "tick"))
    parts += [tag("path", d=f"M{LEFT} {high - BOTTOM}H{WIDE - RIGHT}", class_="axis"), words((LEFT + WIDE) / 2, high - 4, below, "tick"),
              tag("text", escape(beside), x=14, y=f"{(top + high - BOTTOM) / 2:g}", class_="tick", text_anchor="middle",
                  transform=f"rotate(-90 14 {(top + high - BOTTOM) / 2:g})")]
    for more, lines in (("", series.values()), (" dashed", dashed)):
        parts += [tag("path", d="M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line), class_=f"line s{number % 6}{more}")
                  for number, line in enumerate(lines)]
    parts += [tag("circle", cx=f"{across(x):.1f}", cy=f"{up(y):.1f}", r=5, class_="best") for x, y in marks]
    return picture("".join(parts), WIDE, high, title, "chart")


def legend(names: Sequence[str]) -> tuple[str, float]:
    """Names with the colours of their lines, from the left, where a narrow page shows them; and where the axes begin below them."""
    parts, x, y = [], LEFT, 12
    for number, name in enumerate(names):
        wide = 8 * len(name) + 34
        if x + wide > WIDE:
            x, y = LEFT, y + 18
        parts += [tag("path", d=f"M{x} {y}h20", class_=f"line s{number % 6}"), words(x + 26, y + 4, name, "tick", "start")]
        x += wide
    return "".join(parts), y + 14


def power(x: float, y: float, exponent: int) -> str:
    """10 to a power, as a label that ends at x."""
    raised = tag("tspan", str(exponent).replace("-", "−"), dy=-5, font_size=9)
    return tag("text", "10" + raised, x=x, y=f"{y:.1f}", class_="tick", text_anchor="end")


def losses(points: Sequence[Sequence[float]], beside: str = "nats a character") -> str:
    """The curve of a run: (step, training, validation)."""
    best = min(points, key=lambda point: point[2])
    held = [(step, valid) for step, _, valid in points]
    return chart({"training": [(step, training) for step, training, _ in points if math.isfinite(training)], "held out": held},
                 title="Loss by step", below="step", beside=beside, marks=[(best[0], best[2])])


LOWEST = 1e-12  # a smaller share of a gradient is left out of its curve


def places(rows: int) -> str:
    """At how many places of the text."""
    return "at one place" if rows == 1 else f"mean of {rows} places"


def named(one: Mapping[str, Any]) -> str:
    """What a curve of `gradients.reaching` is called."""
    return f"{one['tower']} {one['layer']} {one['state']}" if "tower" in one else f"layer {one['layer']} {one['state']}"


def falling(one: Mapping[str, Any], scale: float = 1.0) -> Points:
    """Its points: steps, and the logarithm of the share, times what clipping leaves of it."""
    return [(float(k), math.log10(scale * share)) for k, share in enumerate(one["shares"]) if scale * share > LOWEST]


def reach(curves: Sequence[Mapping[str, Any]], scale: float = 1.0) -> str:
    """How far the gradient reaches; dashed, what clipping leaves of it where `scale` is less than 1."""
    dashed = [falling(one, scale) for one in curves] if scale < 1 else []
    lines = {named(one): falling(one) for one in curves}
    alone = [line[0] for line in lines.values() if len(line) == 1]  # nothing reaches any state but the last one
    return chart(lines, title="Share of the gradient by steps", below="steps away", beside="share of the gradient", powers=True,
                 marks=alone, dashed=dashed)


# The cells. Whatever carries data-level, data-line or data-number is moved by the page's script, by the name that follows.

def gate(x: float, y: float, name: str, symbol: str, label: str) -> str:
    """A box that fills as its value rises: from the bottom, or of what may be negative from the middle."""
    return tag("g", "".join([
        tag("rect", x=x - 32, y=y, width=64, height=54, rx=9, class_="box"),
        tag("rect", x=x - 32, y=y + 54, width=64, height=0, rx=9, class_="level", data_level=name, data_top=y, data_height=54),
        words(x, y + 23, symbol, "symbol"), tag("text", "", x=x, y=y + 44, text_anchor="middle", class_="number", data_number=name),
        words(x, y + 71, label, "label")]))


def knot(x: float, y: float, sign: str) -> str:
    """An operation by element."""
    return tag("circle", cx=x, cy=y, r=14, class_="knot") + words(x, y + 6, sign, "sign")


def line(d: str, name: str = "", end: bool = True) -> str:
    """A way that a value takes; its width is that of the value `name`."""
    more = {"data_line": name} if name else {}
    return tag("path", d=d, class_="way", **({"marker_end": "url(#arrow)"} if end else {}), **more)


def end(x: float, y: float, label: str, name: str, anchor: str = "middle") -> str:
    """A value at the border of the cell: its name, and its number."""
    return words(x, y, label, "label strong", anchor) + tag("text", "", x=x, y=y + 19, text_anchor=anchor, class_="number",
                                                            data_number=name)


ARROW = tag("defs", tag("marker", tag("path", d="M0 0L10 5L0 10z", class_="tip"), id="arrow", viewBox="0 0 10 10", refX=9, refY=5,
                        markerWidth=10, markerHeight=10, markerUnits="userSpaceOnUse", orient="auto"))
FRAME = tag("rect", x=104, y=30, width=552, height=300, rx=22, class_="cell")


def lstm() -> str:
    """Long short-term memory: the memory runs along the top, and each gate lets through its share."""
    return ARROW + FRAME + "".join([
        line("M24 80H186", "memory before"), line("M214 80H336", "kept"), line("M364 80H736", "memory"),
        line("M24 290H530", "hidden before", end=False), line("M150 396V290", end=False),
        *(line(f"M{x} 290V238") for x in (200, 290, 380, 530)),
        line("M200 182V94", "forget"), line("M290 182V152H336", "input"), line("M380 182V152H364", "candidate"),
        line("M350 138V94", "added"),
        line("M610 80V134", end=False), line("M610 134V206", "squashed"), line("M562 220H596", "output"),
        line("M624 220H736", "hidden"),
        knot(200, 80, "×"), knot(350, 80, "+"), knot(350, 152, "×"), knot(610, 220, "×"),
        tag("rect", x=580, y=118, width=60, height=30, rx=15, class_="knot"), words(610, 138, "tanh", "label"),
        gate(200, 182, "forget", "σ", "forget F"), gate(290, 182, "input", "σ", "input I"),
        gate(380, 182, "candidate", "tanh", "candidate C̃"), gate(530, 182, "output", "σ", "output O"),
        end(20, 52, "C before", "memory before", "start"), end(740, 52, "C", "memory", "end"),
        end(20, 316, "H before", "hidden before", "start"), end(740, 246, "H", "hidden", "end"),
        words(150, 414, "X: what is read", "label strong")])


def product(x: float, y: float, label: str) -> str:
    """A product with the recurrent weights."""
    return tag("rect", x=x - 26, y=y - 12, width=52, height=24, rx=4, class_="knot") + words(x, y + 5, label, "symbol")


def gru(reset: str) -> str:
    """Gated recurrent unit: the update gate mixes the old state with a new one. The reset gate is applied before the product of the state
    with the weights, or after it."""
    if reset == "before":
        way = [line("M314 80V118", "hidden before"), line("M220 182V132H300", "reset"), knot(314, 132, "×"),
               line("M314 146V188", "reset state"), product(314, 200, "W"), line("M314 212V270H554V238", "product"),
               words(496, 290, "(R ⊙ H) W", "label")]
    else:
        way = [line("M314 80V100", "hidden before"), product(314, 112, "W, b"), line("M314 124V146", "product"),
               line("M220 182V160H300", "reset"), knot(314, 160, "×"), line("M314 174V270H554V238", "reset state"),
               words(496, 290, "R ⊙ (H W + b)", "label")]
    return ARROW + FRAME + "".join([
        line("M24 80H396", "hidden before"), line("M424 80H556", "kept"), line("M584 80H736", "hidden"),
        line("M130 80V286H398", end=False), line("M170 396V306H586", end=False), *way,
        *(line(f"M{x} 286V238") for x in (208, 398)), *(line(f"M{x} 306V238") for x in (232, 422, 586)),
        line("M410 182V94", "update"), line("M442 210H470V152H556", "1 − update"), words(466, 144, "1 − Z", "label"),
        line("M570 182V166", "candidate"), line("M570 138V94", "added"),
        knot(410, 80, "×"), knot(570, 152, "×"), knot(570, 80, "+"),
        gate(220, 182, "reset", "σ", "reset R"), gate(410, 182, "update", "σ", "update Z"),
        gate(570, 182, "candidate", "tanh", "candidate H̃"),
        end(20, 52, "H before", "hidden before", "start"), end(740, 52, "H", "hidden", "end"),
        words(170, 414, "X: what is read", "label strong")])


def simple(memory: bool, activation: str) -> str:
    """A plain recurrent cell, or without `memory` a layer that only sees its input."""
    return ARROW + FRAME + "".join([
        *([line("M24 209H346", "hidden before"), end(20, 180, "H before", "hidden before", "start")] if memory else []),
        line("M380 396V238"), line("M414 209H736", "hidden"), gate(380, 182, "hidden", "φ", activation),
        end(740, 180, "H", "hidden", "end"), words(380, 414, "X: what is read", "label strong")])


def cell(kind: str, activation: str, reset: str) -> str:
    """The drawing of a cell."""
    inner = lstm() if kind == "lstm" else gru(reset) if kind == "gru" else simple(kind == "rnn", activation)
    return picture(inner, 760, 424, f"The {kind} cell at one step", "drawing")
