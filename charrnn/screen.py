"""What the commands show. This is the one module that they need; rich is loaded only to draw."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from charrnn.events import Event
from charrnn.heat import coloured_text, gradient_view, units_table
from charrnn.lines import JsonLines, PlainLines, Progress, View, as_json, write_line
from charrnn.tables import catalogue_table, download, evaluation_table, filling_table, inspect_view, plan_table
from charrnn.versus import comparison_table, recall_table
from charrnn.visible import count, duration, figure, on_one_line, size, visible

__all__ = [
    "Progress", "catalogue_table", "coloured_text", "comparison_table", "count", "dashboard_svg", "defect", "download", "duration",
    "error_line", "evaluation_table", "figure", "filling_table", "gradient_view", "inspect_view", "json_line", "note", "novelty_line",
    "plan_table", "recall_table", "size", "training_view", "units_table", "visible", "warn",
]  # fmt: skip


def error_line(message: object) -> None:
    """`charrnn: message` on stderr, as one line that cannot do anything to a terminal."""
    write_line(sys.stderr, f"charrnn: {on_one_line(str(message))}")


def note(message: object) -> None:
    """What a long command has done so far, on stderr."""
    write_line(sys.stderr, on_one_line(str(message)))


def warn(*messages: object) -> None:
    """Likewise for what is worth knowing but stops nothing, a line each."""
    for message in messages:
        write_line(sys.stderr, f"charrnn: note: {on_one_line(str(message))}")


def json_line(value: object) -> None:
    """A value as one line of JSON on stdout: what is not finite as null, characters that split or hide lines as escapes."""
    write_line(sys.stdout, as_json(value))


def defect(error: BaseException) -> None:
    """Where an error that nobody expected arose, on stderr, and what to do with it."""
    import traceback

    for line in "".join(traceback.format_exception(error)).split("\n"):
        write_line(sys.stderr, visible(line))
    error_line(f"this is a defect of charrnn's own ({type(error).__name__}): please report it with the lines above")


def novelty_line(copied: Mapping[str, Any]) -> None:
    """What a sample has copied from the training text, on stderr; nothing where that is not known."""
    longest, share = copied["longest_copy"], copied["copied_share"]
    if longest == "":
        write_line(sys.stderr, "novelty: nothing of it stands in the training text")
    elif longest is not None:
        shown = on_one_line(longest if len(longest) <= 60 else f"{longest[:57]}...")
        write_line(sys.stderr, f"novelty: {100 * share:.0f} % stands in the training text in runs of 20 characters or more; the longest "
                               f"run has {len(longest):,}: {shown}")


def training_view(
    stream: TextIO | None = None, json: bool = False, quiet: bool = False, texts: Sequence[str] = ()
) -> View:
    """The view that fits: JSON on stdout, a dashboard where `stream` (stderr) is a terminal that can, else lines.

    `texts` are the texts as they were given on the command line; the commands proposed at the end name them.
    """
    stream = stream if stream is not None else sys.stderr
    if json:
        return JsonLines()
    if quiet or stream is None:  # Python has no stderr where it was closed before the start
        return View()
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")
    if stream.isatty() and unicode and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown"):
        from charrnn.dashboard import Dashboard

        return Dashboard(stream, texts)
    return PlainLines(stream, texts)


def dashboard_svg(events: Iterable[Event], path: str | os.PathLike[str], width: int = 100, height: int = 30) -> None:
    """Write the dashboard as it stands after these events as an SVG picture."""
    from charrnn.picture import export_svg

    export_svg(events, os.fspath(path), width, height)
