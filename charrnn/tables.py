"""Tables for the commands that print figures, on stdout; in a pipe they are plain and as wide as they need to be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from charrnn import curve
from charrnn.visible import duration, figure, on_one_line, size, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PIPED = 400  # columns of a pipe or a file: enough for every table
CURVE = (78, 14)  # columns and rows of a curve at most
BAR = 28
AROUND = 30  # characters of a text that are shown around a gap
MODEL = "this model"
LEARNING = "this model, learning as it reads"


def evaluation_table(figures: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print the figures of an evaluation, and how the model compares.

    `figures` has run, level, tokens, characters, bytes, nats, nats_per_token, nats_per_character, perplexity,
    bits_per_character, bits_per_byte (with pseudo_ before these six, of a bidirectional model), unknown_characters, seconds; and may
    have references: (name, bits per character), and the figures of dynamic evaluation.
    """
    from rich.text import Text

    pseudo = "pseudo_perplexity" in figures
    mark, key = ("pseudo-", "pseudo_") if pseudo else ("", "")
    rows = [
        (f"{mark}bits per character", figure(figures[f"{key}bits_per_character"])),
        (f"{mark}nats per character", figure(figures[f"{key}nats_per_character"])),
        (f"{mark}bits per byte", figure(figures[f"{key}bits_per_byte"])),
        (f"{mark}nats per token", figure(figures[f"{key}nats_per_token"])),
        (f"{mark}perplexity per token", figure(figures[f"{key}perplexity"])),
        (f"{mark}nats in all", figure(figures[f"{key}nats"], 1)),
        *((name, f"{figures[name]:,}") for name in ("tokens", "characters", "bytes")),
        ("unknown characters", f"{figures['unknown_characters']:,}"),
        ("time", f"{figures['seconds']:.1f} s"),
    ]
    learning = [
        ("bits per character", figure(figures["dynamic_bits_per_character"])),
        ("nats per character", figure(figures["dynamic_nats_per_character"])),
        ("perplexity per token", figure(figures["dynamic_perplexity"])),
        ("time", f"{figures['dynamic_seconds']:.1f} s"),
    ] if "dynamic_perplexity" in figures else []
    head = Text.assemble((on_one_line(str(figures["run"])), "bold"), (f"  {figures['level']} level", "dim"))
    parts: list[RenderableType] = [head, _pairs(rows)]
    if pseudo:
        parts.append(Text("pseudo: each token is predicted from the text on both sides of it. Such figures compare bidirectional models "
                          "with each other, not with perplexities or compressors.", "dim"))
    if learning:
        parts += [Text("\nlearning from the text as it reads it (dynamic evaluation)", "bold"), _pairs(learning)]
    references = [(str(name), float(bits)) for name, bits in figures.get("references") or () if bits is not None]
    if references:
        ranking = [*references, (MODEL, figures["bits_per_character"])]
        if learning:
            ranking.append((LEARNING, figures["dynamic_bits_per_character"]))
        parts += [Text("\nbits per character of the same text, for scale", "bold"), _bars(ranking)]
    _show(parts, stream)


def filling_table(found: Iterable[tuple[Sequence[str], float, float]], stream: TextIO | None = None) -> None:
    """Print candidates for the gaps of a text: share, ln p, and the text around the gaps with what was filled in standing out.

    Each is (text and fills in turn, ln p, share).
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_row(Text("share", "dim"), Text("ln p", "dim"), "")
    for pieces, nats, share in found:
        shown = [f"…{pieces[0][-AROUND:]}" if len(pieces[0]) > AROUND else pieces[0],
                 *(f"{piece[:AROUND]}…{piece[-AROUND:]}" if len(piece) > 2 * AROUND else piece for piece in pieces[1:-1]),
                 f"{pieces[-1][:AROUND]}…" if len(pieces[-1]) > AROUND else pieces[-1]]
        text = Text.assemble(*((visible(piece, keep=""), "bold green" if number % 2 else "") for number, piece in enumerate(shown)))
        table.add_row(f"{100 * share:.1f} %", figure(nats, 2), text)
    _show([table], stream)


def plan_table(plan: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print the plan of a run: `plan` has what was chosen by name, `reasons` by the same names, and what the run will take."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, reason in plan["reasons"].items():
        table.add_row(Text(f"  {name.replace('_', ' ')}", "dim"), _written(plan[name]), Text(reason))
    head = Text.assemble((on_one_line(str(plan["text"])), "bold"),
                         (f"  {plan['level']} level, {plan['vocabulary']:,} symbols, {plan['training_tokens']:,} tokens to learn from, "
                          f"{plan['validation_tokens']:,} held out", "dim"))
    ahead = [("time", f"{duration(plan['seconds'])}, at {1000 * plan['seconds_per_step']:.3g} ms a step as measured here"),
             ("memory", f"about {size(plan['memory'])}")]
    _show([head, table, Text("\nexpected, if it is not stopped early", "bold"), _pairs(ahead)], stream)


def inspect_view(run: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print what is in a run; a part that is missing or empty is left out.

    `run` may have run (its path); configuration, vocabulary, text, best: dicts, which may hold dicts; parameters:
    (name, shape, count) of each; files: (name, bytes) of each; curve: (step, training, validation) in nats a character.
    """
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(on_one_line(str(run.get("run", ""))), "bold")]

    def section(title: str, content: RenderableType) -> None:
        parts.extend([Text(f"\n{title}", "bold cyan"), content])

    for key in ("text", "vocabulary", "configuration"):
        if run.get(key):
            section(key, _pairs(_flat(run[key])))
    if run.get("parameters"):
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column()
        table.add_column()
        table.add_column(justify="right")
        for name, shape, number in run["parameters"]:
            table.add_row(Text(f"  {on_one_line(name)}"), " × ".join(str(n) for n in shape) or "1", f"{number:,}")
        table.add_row(Text("  all", "bold"), "", Text(f"{sum(row[2] for row in run['parameters']):,}", "bold"))
        section("parameters", table)
    if run.get("best"):
        section("best figures", _pairs(_flat(run["best"])))
    if run.get("files"):
        section("files", _pairs([(name, size(length)) for name, length in run["files"]]))
    if run.get("curve"):
        section("curve, nats per character", _Curve(run["curve"]))
    _show(parts, stream)


def catalogue_table(rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print rows as a table whose columns are the keys of the first row; `bytes` becomes a size, None nothing."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, key in enumerate(rows[0]):
        right = key == "bytes"
        table.add_column("size" if right else key, justify="right" if right else "left", no_wrap=right or number == 0)
    for row in rows:
        cells = [
            "" if row.get(key) is None else size(row[key]) if key == "bytes" else on_one_line(str(row[key]))
            for key in rows[0]
        ]
        table.add_row(Text(cells[0], "cyan"), *map(Text, cells[1:]))
    _show([table], stream)


@contextlib.contextmanager
def download(name: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr for one file, fed with (bytes so far, bytes in all if known). Nothing in a pipe."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.text import Text

    stream = stream if stream is not None else sys.stderr
    if stream is None or not stream.isatty():
        yield lambda done, total: None
        return
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    label = TextColumn("{task.description}", markup=False)
    with Progress(label, *columns, console=_console(stream), transient=True) as progress:
        task = progress.add_task(Text(on_one_line(name)).plain, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Curve:
    """The loss curve in the width there is."""

    def __init__(self, points: Sequence[tuple[float, float | None, float | None]]) -> None:
        self.training = [(step, training) for step, training, _ in points if training is not None]
        self.validation = [(step, validation) for step, _, validation in points if validation is not None]

    def __rich_console__(self, console: Any, options: Any) -> Iterator[RenderableType]:
        from rich.text import Text

        from charrnn.picture import coloured

        width, height = min(CURVE[0], options.max_width), CURVE[1]
        rows = curve.draw(self.training, self.validation, width, height, only_ascii=options.ascii_only)
        for row in [*rows, [("  ", "axis"), *curve.legend(options.ascii_only)]]:
            line = Text.assemble(*coloured(row))
            line.rstrip()
            yield line


def _console(stream: TextIO) -> Any:
    from rich.console import Console

    width = None if stream.isatty() else PIPED
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def _show(parts: Iterable[RenderableType], stream: TextIO | None) -> None:
    """Print, without spaces at the ends of lines, and without failing where the stream's encoding lacks a character."""
    stream = stream if stream is not None else sys.stdout
    console = _console(stream)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    text = "\n".join(line.rstrip() for line in capture.get().split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def _text(value: Any) -> RenderableType:
    from rich.text import Text

    return Text(_written(value), overflow="fold")


def _written(value: Any) -> str:
    """A value as people write it: thousands apart, five digits of a float, yes and no, a list with commas."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else figure(value)
    if isinstance(value, list | tuple):
        return ", ".join(_written(item) for item in value) or "-"
    return on_one_line(str(value)) if str(value).strip() == str(value) else on_one_line(repr(value))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A dict of dicts as pairs; the keys of an inner dict follow the name of the outer one."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        pairs += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, value)]
    return pairs


def _pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(Text(f"  {on_one_line(str(name))}", "dim"), _text(value))
    return table


def _bars(ranking: Sequence[tuple[str, float]]) -> Table:
    """Names, figures and bars, the best (smallest) first; the model's own rows stand out."""
    from rich.table import Table
    from rich.text import Text

    finite = [bits for _, bits in ranking if abs(bits) < float("inf")]
    most = max(finite, default=0.0) or 1.0
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for name, bits in sorted(ranking, key=lambda row: (row[1] != row[1], row[1])):
        own = name in (MODEL, LEARNING)
        length = round(BAR * bits / most) if bits in finite else 0
        bar = Text("█" * max(1, length), "green" if own else "dim")
        label = Text(f"{'>' if own else ' '} {on_one_line(name)}", "bold green" if own else "")
        table.add_row(label, figure(bits), bar)
    return table
