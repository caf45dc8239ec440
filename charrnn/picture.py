"""The picture of a training run: what the events have said so far, and how rich draws it at a given size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from charrnn import curve
from charrnn.events import End, Evaluation, Event, Notice, Sample, Start, Step
from charrnn.visible import count, duration, figure, on_one_line, visible
from charrnn.wrapping import cropped, tail

COLOURS = {"axis": "dim", "training": "cyan", "validation": "yellow", "best": "bold green"}
WIDE = 100  # columns from which the curve and the sample lie side by side
MOST_POINTS = 2000  # of the training curve, before neighbours are averaged


@dataclass
class Story:
    """What the events have told so far."""

    start: Start | None = None
    step: Step | None = None
    evaluation: Evaluation | None = None
    best: Evaluation | None = None
    sample: Sample | None = None
    end: End | None = None
    seconds: float = 0.0
    training: list[curve.Point] = field(default_factory=list)
    validation: list[curve.Point] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take in the next event."""
        self.seconds = getattr(event, "seconds", self.seconds)
        if isinstance(event, Start):
            self.start = event
            self.notes += [on_one_line(note) for note in event.notes]
            self.training += [(step, training) for step, training, _ in event.curve]
            self.validation += [(step, validation) for step, _, validation in event.curve]
        elif isinstance(event, Step):
            self.step = event
            self.training.append((event.step, event.training_nats_per_character))
            if len(self.training) > MOST_POINTS:
                pairs = zip(self.training[::2], self.training[1::2], strict=False)
                self.training = [((x1 + x2) / 2, (y1 + y2) / 2) for (x1, y1), (x2, y2) in pairs]
        elif isinstance(event, Evaluation):
            self.evaluation = event
            self.best = event if event.best else self.best
            self.validation.append((event.step, event.validation_nats_per_character))
        elif isinstance(event, Sample):
            self.sample = event
        elif isinstance(event, Notice):
            self.notes.append(f"step {event.step:,}: {on_one_line(event.text)}")
        elif isinstance(event, End):
            self.end = event


def draw(story: Story, width: int, height: int, since: float = 0.0) -> RenderableType:
    """The dashboard in `width` columns and at most `height` rows, `since` seconds after the last event.

    Parts drop out as it shrinks: notes and blank lines, the sample, the curve, and the frame last.
    """
    if height < 7 or width < 44:
        lines = [_progress(story, width, since), _losses_in_a_line(story, width), _model(story, width)]
        return Group(*lines[: max(1, height)])
    roomy = height >= 30
    notes = story.notes[-2:] if roomy else story.notes[-1:] if height >= 24 else []
    top = 7 + 2 * roomy + len(notes)
    parts: list[RenderableType] = [_summary(story, width, since, notes, roomy)]
    rest = height - top
    if width >= WIDE and 6 <= rest <= 20:
        side = Table.grid(expand=True)
        side.add_column(width=width - width * 2 // 5)
        side.add_column(width=width * 2 // 5)
        side.add_row(_curve(story, width - width * 2 // 5, rest), _sample(story, width * 2 // 5, rest))
        parts.append(side)
    elif rest >= 12:
        below = min(14, max(5, rest * 3 // 8))
        parts += [_curve(story, width, rest - below), _sample(story, width, below)]
    elif rest >= 5:
        parts.append(_curve(story, width, rest))
    return Group(*parts)


def export_svg(events: Iterable[Event], path: str, width: int = 100, height: int = 30) -> None:
    """Write the dashboard as it stands after these events to `path`, as an SVG picture."""
    story = Story()
    for event in events:
        story.add(event)
    console = Console(
        record=True, width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor",
        legacy_windows=False, markup=False, emoji=False, highlight=False, _environ={},
    )
    console.print(draw(story, width, height))
    text = " ".join(f"charrnn train {story.start.text}".split()) if story.start else "charrnn train"
    console.save_svg(path, title=visible(text, keep=""))


def _panel(content: RenderableType, title: Text, width: int, height: int, subtitle: str = "") -> Panel:
    title.truncate(width - 6, overflow="ellipsis")
    title.stylize_before("not dim")  # the frame is
    below = Text(tail(subtitle, width - 6), "dim") if subtitle else None
    return Panel(
        content, title=title, title_align="left", subtitle=below, subtitle_align="right", border_style="dim",
        width=width, height=height,
    )


def _summary(story: Story, width: int, since: float, notes: list[str], roomy: bool) -> Panel:
    start, inner = story.start, width - 4
    lines: list[RenderableType] = [_model(story, inner)]
    blank: list[RenderableType] = [Text("")] if roomy else []
    lines += [*blank, _progress(story, inner, since), *blank, _losses(story, inner)]
    lines += [cropped(note, inner, 1, "magenta") for note in notes]
    title = Text.assemble(("charrnn", "bold"), (f"  {on_one_line(start.text)}" if start else "", ""))
    subtitle = on_one_line(start.run) if start else ""
    return _panel(Group(*lines), title, width, 7 + 2 * roomy + len(notes), subtitle)


def _model(story: Story, width: int) -> RenderableType:
    """Cell × layers × hidden, level and parameters; on the right, where there is room, what it runs on."""
    start = story.start
    if start is None:
        return Text("getting ready", "dim")
    left = Text.assemble(
        (start.cell, "bold"), f" {start.layers} × {start.hidden}", (", ", "dim"), f"{start.level} level",
        (f", {start.vocabulary:,} tokens, ", "dim"), count(start.parameters), (" parameters", "dim"),
    )
    threads = f", {start.threads} threads" if start.device == "cpu" and start.threads > 1 else ""
    right = Text(f"{start.batch} × {start.window} tokens a step, {start.device}{threads}", "dim")
    if left.cell_len + right.cell_len + 3 > width:
        left.truncate(width, overflow="ellipsis")
        return left
    return Text.assemble(left, " " * (width - left.cell_len - right.cell_len), right)


def _progress(story: Story, width: int, since: float) -> RenderableType:
    """Step of steps, a bar, elapsed and remaining time."""
    steps = story.step.steps if story.step else story.start.steps if story.start else 0
    last = max((event.step for event in (story.start, story.step, story.evaluation, story.end) if event), default=0)
    share = min(1.0, last / steps) if steps else 0.0
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in range(2):
        grid.add_column(no_wrap=True)
    for _ in range(2):
        grid.add_column(no_wrap=True, justify="right")
    times = Text(duration(story.seconds + (0 if story.end else since)), "bold")
    if story.end:
        times.append(f"  {story.end.reason}", "bold green" if story.end.reason == "finished" else "bold yellow")
    elif story.step:
        times.append(f"  {duration(max(0.0, story.step.remaining - since))} left", "dim")
    where = Text.assemble(("step ", "dim"), (f"{last:,}", "bold"), (f" of {steps:,}", "dim"))
    percent = f"{100 * share:.0f} %"
    if width < 44:
        where.truncate(width, overflow="ellipsis")
        return where
    used = where.cell_len + len(percent) + times.cell_len + 6
    bar = ProgressBar(total=1.0, completed=share, width=max(4, width - used), complete_style="cyan")
    grid.add_row(where, bar, percent, times)
    return grid


def _losses(story: Story, width: int) -> RenderableType:
    """Three rows: the losses as a small table; on the right, where there is room, speed, learning rate and gradient."""
    step, evaluation, wide = story.step, story.evaluation, width >= 72
    grid = Table.grid(padding=(0, 2 if wide else 1, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    for _ in range(3):
        grid.add_column(no_wrap=True, justify="right")
    if width >= 56:
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(no_wrap=True, justify="right")
    heads = ["nats/char", "bits/char", "perplexity"] if wide else ["nats/ch", "bits/ch", "perplexity"]
    if evaluation and evaluation.bidirectional:
        heads[2] = "pseudo-perplexity" if wide else "pseudo-pp."
    names = ("characters/s", "learning rate", "gradient norm") if wide else ("char/s", "rate", "norm")
    rates = [
        count(step.characters_per_second) if step else "-",
        f"{step.learning_rate:.1e}" if step else "-",
        figure(step.gradient_norm, 2) if step else "-",
    ]
    nats = step.training_nats_per_character if step else None
    bits = None if nats is None else nats / math.log(2)
    style = COLOURS["best" if evaluation and evaluation.best else "validation"]
    valid = [
        figure(evaluation.validation_nats_per_character if evaluation else None),
        figure(evaluation.validation_bits_per_character if evaluation else None),
        figure(evaluation.validation_perplexity if evaluation else None, 2),
    ]
    rows: list[list[RenderableType]] = [
        ["", *(Text(head, "dim") for head in heads)],
        [Text("training", COLOURS["training"]), figure(nats), figure(bits), ""],
        [Text("validation", style), *(Text(value, "bold") for value in valid)],
    ]
    for row, name, rate in zip(rows, names, rates, strict=True):
        grid.add_row(*row, *(("", name, rate) if width >= 56 else ()))
    return grid


def _losses_in_a_line(story: Story, width: int) -> Text:
    nats = story.step.training_nats_per_character if story.step else None
    held = story.evaluation.validation_nats_per_character if story.evaluation else None
    line = Text.assemble(
        ("training ", "dim"), (figure(nats), COLOURS["training"]),
        ("  validation ", "dim"), (figure(held), COLOURS["validation"]), (" nats/character", "dim"),
    )
    line.truncate(width, overflow="ellipsis")
    return line


def _curve(story: Story, width: int, height: int) -> Panel:
    rows = curve.draw(story.training, story.validation, width - 4, height - 2)
    legend = curve.legend()
    title = Text.assemble(("nats/character" if width >= 60 else "loss", "bold"), "   ", *coloured(legend))
    best = story.best
    below = f"best {figure(best.validation_nats_per_character)} at step {best.step:,}" if best else ""
    if story.step and story.step.dropout and width >= 60:
        below = f"dropout {story.step.dropout:.2f}   {below}".rstrip()
    return _panel(Group(*(Text.assemble(*coloured(row)) for row in rows)), title, width, height, below)


def _sample(story: Story, width: int, height: int) -> Panel:
    sample = story.sample
    does = "it fills [in] now" if story.start and story.start.bidirectional else "it writes now"
    title = Text.assemble((does, "bold"), (f"   step {sample.step:,}" if sample else "", "dim"))
    waiting = Text("the first sample is yet to come", "dim italic")
    body = cropped(visible(sample.text), width - 4, height - 2) if sample else waiting
    return _panel(body, title, width, height, "" if story.end else "Ctrl-C saves and stops")


def coloured(row: Iterable[curve.Piece]) -> list[tuple[str, str]]:
    """The pieces of a curve with rich's styles for them."""
    return [(text, COLOURS[kind]) for text, kind in row]
