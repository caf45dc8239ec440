"""Laws of the curve: its shape, its place, and what can be told apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import curve

POINTS = st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 1e6) | st.just(math.nan)), max_size=30)


def text(rows: list[curve.Row]) -> list[str]:
    return ["".join(piece for piece, _ in row) for row in rows]


@settings(max_examples=200)
@given(POINTS, POINTS, st.integers(16, 90), st.integers(3, 30), st.booleans())
def test_every_row_has_the_width_asked_for(
    training: list[curve.Point], validation: list[curve.Point], width: int, height: int, only_ascii: bool
) -> None:
    rows = curve.draw(training, validation, width, height, only_ascii)
    assert [len(row) for row in text(rows)] == [width] * height
    assert not only_ascii or all(row.isascii() for row in text(rows))


@given(POINTS, st.integers(30, 90), st.integers(6, 20))
def test_the_lowest_validation_loss_is_marked(validation: list[curve.Point], width: int, height: int) -> None:
    drawn = "".join(text(curve.draw([], validation, width, height)))
    assert ("◆" in drawn) == any(not math.isnan(loss) for _, loss in validation)


def test_a_rising_line_rises() -> None:
    rows = text(curve.draw([(step, step / 10) for step in range(101)], [], 41, 12))
    where = [next((at for at, char in enumerate(row) if 0x2800 < ord(char) < 0x2900), None) for row in rows[:-2]]
    places = [at for at in where if at is not None]
    assert len(places) >= 8
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == len(places)


def test_the_dots_of_a_straight_line_lie_on_it() -> None:
    rows = curve.draw([(step, 3 - step / 100) for step in range(101)], [], 50, 14)
    cells = [text([row])[0].split("│")[-1].split("┤")[-1] for row in rows[:-2]]
    dots: dict[int, list[int]] = {}
    for row, line in enumerate(cells):
        for column, sign in enumerate(line):
            for bit, (x, y) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]):
                if sign != " " and (ord(sign) - 0x2800) >> bit & 1:
                    dots.setdefault(2 * column + x, []).append(4 * row + y)
    first, last = min(dots), max(dots)
    assert last - first >= 80
    slope = (max(dots[last]) - min(dots[first])) / (last - first)
    for column, heights in dots.items():
        assert all(abs(height - min(dots[first]) - slope * (column - first)) < 2 for height in heights)


def test_ticks_stand_where_their_values_are() -> None:
    rows = text(curve.draw([], [(0, 1.0), (50, 1.5), (100, 2.0)], 60, 13))
    lines = {row.split("┤")[0].strip(): row for row in rows if "┤" in row}
    assert "◆" in lines["1.0"]
    assert "◇" in lines["1.5"]
    axis, labels = rows[-2], rows[-1]
    assert axis.index("┬") == labels.index("0")
    assert axis[labels.index("50") + 1] == "┬"
    assert labels.split() == ["0", "50", "100"]


def test_the_two_series_are_told_apart_without_colour() -> None:
    points = [(step, 2 - step / 100) for step in range(0, 101, 10)]
    for only_ascii in (False, True):
        pieces = [piece for row in curve.draw(points, points[::3], 40, 8, only_ascii) for piece in row]
        signs = {kind: {sign for text, of in pieces if of == kind for sign in text} for _, kind in pieces}
        assert len(signs) == 4
        assert not signs["training"] & (signs["validation"] | signs["best"])
        assert not signs["validation"] & signs["best"]


def test_a_steep_start_does_not_flatten_the_rest() -> None:
    points = [(step, 100.0 if step < 3 else 2 - step / 1000) for step in range(1000)]
    rows = text(curve.draw(points, [], 60, 12))
    assert sum(any(0x2800 < ord(char) < 0x2900 for char in row[10:]) for row in rows) >= 8


@pytest.mark.parametrize(("width", "height"), [(15, 9), (40, 2), (0, 0)])
def test_no_room_no_curve(width: int, height: int) -> None:
    assert curve.draw([(1, 1.0)], [], width, height) == []
