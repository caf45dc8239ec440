"""Text cut and wrapped to the cells of a terminal: a mark stays with its letter, a wide character counts twice."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text


def cropped(text: str, width: int, height: int, style: str = "") -> Text:
    """The text's first lines, wrapped at words to `width` cells, with … where something is left out."""
    lines: list[str] = []
    for line in text[: 8 * width * height].rstrip("\n").expandtabs(4).split("\n"):
        lines += wrapped(line, width)
        if len(lines) > height:
            break
    if len(lines) > height:
        lines = lines[:height]
        lines[-1] = _head(lines[-1], width - 1) + "…"
    return Text("\n".join(lines), style, no_wrap=True, overflow="crop")


def wrapped(line: str, width: int) -> list[str]:
    """One line as lines of at most `width` cells, cut at spaces where there are some, never before a mark."""
    lines: list[str] = []
    while cell_len(line) > width:
        head = _head(line, width)
        if not head or head == line:  # a wide character in a single column
            return [*lines, "…"]
        at = head.rfind(" ") + 1 if line[len(head)] != " " else len(head)
        head = head[:at] if at > len(head) // 2 else head
        lines.append(head.rstrip(" "))
        line = line[len(head) :].lstrip(" ")
        if line and cell_len(line[0]) == 0:  # a mark on a space
            line = " " + line
    return [*lines, line]


def _head(text: str, width: int) -> str:
    """As much of the text's beginning as fits into `width` cells."""
    end = used = 0
    for cluster in _clusters(text):
        used += cell_len(cluster)
        if used > width:
            break
        end += len(cluster)
    return text[:end]


def tail(text: str, width: int) -> str:
    """As much of the text's end as fits, after … where something is left out."""
    if cell_len(text) <= width:
        return text
    begin, used = len(text), 1
    for cluster in reversed(_clusters(text)):
        used += cell_len(cluster)
        if used > width:
            break
        begin -= len(cluster)
    return "…" + text[begin:]


def _clusters(text: str) -> list[str]:
    """Characters, each with the marks on it (cells of width 0) and what is joined to it."""
    clusters: list[str] = []
    for character in text:
        if clusters and (cell_len(character) == 0 or clusters[-1].endswith("\u200d")):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters
