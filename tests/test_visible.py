"""Laws of text made visible, and of figures."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.visible import count, duration, escaped, figure, on_one_line, size, visible

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
HOSTILE = st.text(st.sampled_from("a\n\t\r\x00\x1b\x7f\x85\x9b\u061c\u200e\u2028\u202e\u2069\ud800\ufffe\U0001ffff"))
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(ANY | HOSTILE, ANY | HOSTILE)
def test_pieces_joined_are_the_whole(left: str, right: str) -> None:
    assert visible(left + right) == visible(left) + visible(right)


@given(ANY | HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    for character in shown:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in DIRECTIONS
        assert ord(character) & 0xFFFE != 0xFFFE
    shown.encode()
    assert visible(shown) == shown
    assert len(on_one_line(text).splitlines()) <= 1


@pytest.mark.parametrize("text", ["plain", "a\nb\tc", "e\u0301", "日本語", "👩\u200d🔬", "שלום", "a\u200bb", "[red]"])
def test_text_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "␛]0;title␇"), ("\x7f", "␡"), ("\x9b2J", "‹U+009B›2J"), ("\u202e", "‹U+202E›"),
        ("\r\n", "␍\n"), ("\ud800", "‹U+D800›"), ("\U0010ffff", "‹U+10FFFF›"), ("\u2028", "‹U+2028›"),
    ],
)  # fmt: skip
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible("\n\t", keep="") == "␊␉"


@given(ANY | HOSTILE)
def test_escaped_json_says_the_same_on_one_line(text: str) -> None:
    line = escaped(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(line) == {"text": text}
    assert len(line.splitlines()) == 1
    line.encode()


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03"), (1e5, "27:46:40"), (-3, "0:00"), (math.inf, "-")],
)
def test_duration(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"), (999, "999"), (999.7, "1.00 K"), (12_345, "12.3 K"), (1_234_567, "1.23 M"), (999_999, "1.00 M"),
        (99_960, "100 K"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_count(number: float, written: str) -> None:
    assert count(number) == written


def test_size() -> None:
    assert [size(n) for n in (512, 1536, 13_212_000, 1023)] == ["512 B", "1.50 KiB", "12.6 MiB", "1.00 KiB"]


def test_figure_keeps_the_digits_that_matter() -> None:
    values = (1.23456, 12.3456, 1234.56, 1e9, 0.00012, None, math.nan, math.inf)
    assert [figure(value) for value in values] == ["1.235", "12.346", "1,234.6", "1.00e+09", "0.000", "-", "-", "-"]
