"""A curve as SVG: losses against minutes on a logarithmic axis, others' points beside it. Pure functions of numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.peers import Peer

WIDTH, HEIGHT = 820, 460
LEFT, RIGHT, TOP, BOTTOM = 56, 214, 26, 46  # margins; the names of the points need room at the right
COLOURS = ("#1a7f37", "#8250df")
INK, DIM, GRID, PAPER = "#1f2328", "#656d76", "#d8dee4", "#ffffff"
MINUTES = (1 / 60, 1 / 30, 1 / 12, 1 / 6, 0.5, 1, 3, 5, 10, 30, 60, 120, 240, 600, 1440)
NEAR = 13  # pixels that two names on the same side keep between them


def told(minutes: float) -> str:
    """1 s, 30 s, 1 min, 2 h."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 60 else f"{minutes / 60:.0f} h"


def spread(places: Sequence[float]) -> list[float]:
    """The places moved apart, in their order, so that each is NEAR below the one above it."""
    order, out = sorted(range(len(places)), key=lambda n: places[n]), list(places)
    for above, below in itertools.pairwise(order):
        out[below] = max(out[below], out[above] + NEAR)
    return out


def drawn(curves: Mapping[str, Sequence[tuple[float, float]]], peers: Sequence[Peer]) -> str:
    """The picture. Peers without a time stand at the right edge, as lines that reach across."""
    timed = [one for one in peers if one.minutes is not None]
    across = [one for one in peers if one.minutes is None]
    minutes = [x for points in curves.values() for x, _ in points] + [one.minutes for one in timed if one.minutes is not None]
    nats = [y for points in curves.values() for _, y in points] + [one.nats for one in peers]
    low, high = min(nats) - 0.03, max(nats) + 0.03
    first, last = math.log(min(minutes) / 1.3), math.log(max(minutes) * 1.3)
    x = lambda value: LEFT + (math.log(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    y = lambda value: TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
    edge = WIDTH - RIGHT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
           _text(LEFT - 40, 15, "nats per character, held out"), _text((LEFT + edge) / 2, HEIGHT - 8, "training time", anchor="middle")]
    step = 0.1 if high - low > 0.3 else 0.05
    for n in range(math.ceil(low / step), math.floor(high / step) + 1):
        out += [_line(LEFT, y(n * step), edge, y(n * step), GRID), _text(LEFT - 8, y(n * step) + 4, f"{n * step:.2f}", "end", DIM)]
    for tick in MINUTES:
        if first <= math.log(tick) <= last:
            out += [_line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, GRID), _text(x(tick), HEIGHT - BOTTOM + 16, told(tick), "middle", DIM)]
    named: list[tuple[float, str, str]] = []  # names at the right edge
    for one in across:
        out.append(_line(LEFT, y(one.nats), edge, y(one.nats), DIM, dashed=True))
        named.append((y(one.nats), one.name, DIM))
    for title, points, colour in zip(curves, curves.values(), COLOURS):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for a, b in points:
            out.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{colour}"/>')
            out.append(_text(x(a), y(b) - 8, f"{b:.3f}", "middle", colour))
        named.append((y(points[-1][1]), title, colour))
    for (_, title, colour), place in zip(named, spread([at for at, _, _ in named])):
        out.append(_text(edge + 8, place + 4, title, colour=colour))
    for one in timed:
        assert one.minutes is not None
        a, b = x(one.minutes), y(one.nats)
        mark = f'<path d="M{a - 4:.1f},{b:.1f} l4,-4 l4,4 l-4,4 z" fill="{"none" if one.learns else DIM}" stroke="{DIM}"/>'
        out += [mark, _text(a + 8, b + 4, f"{one.name} {one.nats:.3f}", colour=DIM)]
    return "\n".join([*out, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'
