"""A loss curve drawn with characters. The pieces say what they are; whoever prints them gives them colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]  # step, loss
Piece = tuple[str, str]  # characters, and what they are: axis, training, validation or best
Row = list[Piece]

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille: four rows of two dots a cell
_MARKS = {"validation": "◇", "best": "◆"}
_ASCII_MARKS = {"validation": "o", "best": "@"}


def legend(only_ascii: bool = False) -> list[Piece]:
    """What the signs of `draw` mean."""
    marks = _ASCII_MARKS if only_ascii else _MARKS
    line = ".." if only_ascii else "⠒⠒"
    return [
        (f"{line} training", "training"),
        ("  ", "axis"),
        (f"{marks['validation']} validation", "validation"),
        ("  ", "axis"),
        (f"{marks['best']} best", "best"),
    ]


def draw(
    training: Iterable[Point], validation: Iterable[Point], width: int, height: int, only_ascii: bool = False,
    whole: bool = False,
) -> list[Row]:
    """`height` rows of `width` cells: axes, the training loss as a line, the validation losses as marks over it.

    The two can be told apart without colour. The range of losses leaves out the steep first steps, which would flatten
    the rest, unless the `whole` is asked for; the line then leaves the picture at the top.
    """
    train, valid = _finite(training), _finite(validation)
    rows = height - 2
    if rows < 1 or width < 16:
        return []
    if not train and not valid:
        return [[(" " * width, "axis")] for _ in range(height)]
    x0, x1, y0, y1 = _ranges(train, valid, whole)
    marks = ticks(y0, y1, min(6, max(3, rows // 2)))
    y_labels = {round((y1 - y) / (y1 - y0) * (rows - 1)): label for y, label in marks if len(label) < width // 2}
    margin = max(len(label) for label in y_labels.values()) if y_labels else 0
    columns = width - margin - 2
    cells = _line(train, (x0, x1, y0, y1), columns, rows, only_ascii)
    best = min(valid, key=lambda point: point[1], default=None)
    for point in valid:
        kind = "best" if point == best else "validation"
        column = round((point[0] - x0) / (x1 - x0) * (columns - 1))
        row = round((y1 - point[1]) / (y1 - y0) * (rows - 1))
        if row >= 0 and cells.get((row, column), ("", ""))[1] != "best":
            cells[row, column] = ((_ASCII_MARKS if only_ascii else _MARKS)[kind], kind)
    tee, bar, corner, dash, notch = "+|+-+" if only_ascii else "┤│└─┬"
    picture = [
        _merged(
            [(f"{y_labels.get(row, ''):>{margin}} {tee if row in y_labels else bar}", "axis")]
            + [cells.get((row, column), (" ", "axis")) for column in range(columns)]
        )
        for row in range(rows)
    ]
    places, labels = _steps_below(x0, x1, columns)
    axis = "".join(notch if column in places else dash for column in range(columns))
    picture.append([(" " * margin + " " + corner + axis, "axis")])
    picture.append([(" " * (margin + 2) + labels, "axis")])
    return picture


def _finite(points: Iterable[Point]) -> list[Point]:
    return sorted((x, y) for x, y in points if y is not None and math.isfinite(x) and math.isfinite(y))


def _ranges(train: Sequence[Point], valid: Sequence[Point], whole: bool = False) -> tuple[float, float, float, float]:
    """First and last step, lowest and highest loss of the picture; never empty."""
    points = [*train, *valid]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    if x0 <= 0.1 * x1:
        x0 = 0.0
    settled = [y for x, y in points if whole or x >= x0 + 0.05 * (x1 - x0)] or [y for _, y in points]
    y0, y1 = min(y for _, y in points), max(settled)
    scale = max(1e-3, abs(y0), abs(y1))
    pad = 0.04 * (y1 - y0) if y1 - y0 > 1e-3 * scale else 0.05 * scale
    return x0, x1 if x1 > x0 else x0 + 1, max(0.0, y0 - pad) if y0 >= 0 else y0 - pad, y1 + pad


def _line(
    points: Sequence[Point], ranges: tuple[float, float, float, float], columns: int, rows: int, only_ascii: bool
) -> dict[tuple[int, int], Piece]:
    """Cells (row, column) that the line through the means of each dot column touches."""
    x0, x1, y0, y1 = ranges
    wide, high = (columns, rows) if only_ascii else (2 * columns, 4 * rows)
    sums: dict[int, tuple[float, int]] = {}
    for x, y in points:
        column = round((x - x0) / (x1 - x0) * (wide - 1))
        total, number = sums.get(column, (0.0, 0))
        sums[column] = (total + y, number + 1)
    means = [(column, (y1 - total / n) / (y1 - y0) * (high - 1)) for column, (total, n) in sorted(sums.items())]
    dots: dict[tuple[int, int], int] = {}
    at, level = means[0] if means else (0, 0.0)
    for column, goal in means:
        start, span = level, max(1, column - at)
        for x in range(at + (column > at), column + 1):
            following = start + (goal - start) * (x - at) / span if column > at else goal
            low, top = sorted((round(level), round(following)))
            # A steep piece is drawn from its neighbour on, not over it.
            low, top = (low + (level < following), top - (level > following)) if top > low else (low, top)
            for y in range(max(0, low), min(high - 1, top) + 1):
                cell = (y, x) if only_ascii else (y // 4, x // 2)
                dots[cell] = dots.get(cell, 0) | _DOTS[y % 4][x % 2]
            level = following
        at = column
    return {cell: ("." if only_ascii else chr(0x2800 + bits), "training") for cell, bits in dots.items()}


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[tuple[float, str]]:
    """At most `most` round numbers between low and high, evenly spaced, and how they are written."""
    power = math.floor(math.log10((high - low) / most))
    for step in (factor * 10.0**exponent for exponent in (power, power + 1, power + 2) for factor in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most and not (whole and step < 1):
            break
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(n * step, f"{n * step:,.{digits}f}") for n in range(first, last + 1)]


def _steps_below(x0: float, x1: float, columns: int) -> tuple[set[int], str]:
    """Columns of the marks below the axis, and the line of their labels."""
    places: set[int] = set()
    labels = ""
    for x, label in ticks(x0, x1, max(3, columns // 12), whole=True):
        column = round((x - x0) / (x1 - x0) * (columns - 1))
        start = min(max(0, column - len(label) // 2), columns - len(label))
        if start >= len(labels) + (2 if labels else 0):
            places.add(column)
            labels = labels.ljust(start) + label
    return places, labels.ljust(columns)


def _merged(pieces: Iterable[Piece]) -> Row:
    """Neighbours of one kind put together."""
    row: Row = []
    for text, kind in pieces:
        if row and row[-1][1] == kind:
            row[-1] = (row[-1][0] + text, kind)
        else:
            row.append((text, kind))
    return row
