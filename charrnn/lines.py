"""What training says, in lines of text or JSON, and its last words. No rich here."""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from charrnn.advice import LONGER
from charrnn.events import End, Evaluation, Event, Notice, Sample, Saved, Start, Step
from charrnn.visible import count, duration, escaped, figure, on_one_line, visible


class View:
    """A context manager that is called with each event of training; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was found."""

    def __call__(self, event: Event) -> None:
        """Show the next event."""


class JsonLines(View):
    """One event a line, as JSON: figures that are not finite as null, characters that split or hide lines escaped."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        write_line(self.stream or sys.stdout, as_json(event.as_json()))


class PlainLines(View):
    """One plain line an event, for files and pipes: steps at most once in 5 % of the run, no codes, no colour."""

    def __init__(self, stream: TextIO, texts: Sequence[str] = ()) -> None:
        self.stream, self.texts = stream, texts
        self.start: Start | None = None
        self.sample: Sample | None = None
        self.following = 0.0  # the step from which on the next step event is shown
        self.saved: set[str] = set()

    def __call__(self, event: Event) -> None:
        for line in self.lines(event):
            write_line(self.stream, line)

    def lines(self, event: Event) -> list[str]:
        """What the event is worth saying."""
        if isinstance(event, Start):
            self.start = event
            resumed = f", from step {event.step:,} on" if event.step else ""
            return [
                f"training on {on_one_line(event.text)}: {event.cell} {event.layers} x {event.hidden}"
                f"{' both ways' if event.bidirectional else ''}, "
                f"{event.level} level, {event.vocabulary:,} tokens, {count(event.parameters)} parameters, "
                f"{event.steps:,} steps{resumed}; run {on_one_line(event.run)}",
                *(f"plan: {on_one_line(line)}" for line in event.plan),
                *(f"note: {on_one_line(note)}" for note in event.notes),
            ]
        if isinstance(event, Step):
            if event.step < self.following and event.step < event.steps:
                return []
            self.following = event.step + event.steps / 20
            return [
                f"step {event.step:,} of {event.steps:,}  {duration(event.seconds)}, {duration(event.remaining)} left  "
                f"training {figure(event.training_nats_per_character)} nats/character  "
                f"{count(event.characters_per_second)} characters/s  rate {event.learning_rate:.1e}  "
                f"gradient {figure(event.gradient_norm, 2)}{f'  dropout {event.dropout:.2f}' if event.dropout else ''}"
            ]
        if isinstance(event, Evaluation):
            best = ", the best so far" if event.best else ""
            return [f"step {event.step:,}  {_losses(event)}{best}"]
        if isinstance(event, Sample):
            self.sample = event
            text = visible(event.text, keep="")
            does = "fills [in]" if self.start and self.start.bidirectional else "writes"
            return [f"step {event.step:,}  it {does}: {text[:160]}{'...' if len(text) > 160 else ''}"]
        if isinstance(event, Notice):
            return [f"step {event.step:,}  note: {on_one_line(event.text)}"]
        if isinstance(event, Saved):
            fresh = event.path not in self.saved
            self.saved.add(event.path)
            return [f"step {event.step:,}  saved {on_one_line(event.path)}"] if fresh else []
        if isinstance(event, End):
            return conclusion(event, self.start, self.sample, self.texts)
        return []


class Progress:
    """How far something long has come, told every few seconds: on a terminal over and over in one line, which is gone at the end."""

    def __init__(
        self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, unit: str = "tokens"
    ) -> None:
        self.what, self.stream, self.clock, self.unit = what, stream if stream is not None else sys.stderr, clock, unit
        self.live = self.stream is not None and self.stream.isatty()
        self.began = self.told = 0.0
        self.first = -1  # how much was done at the first call: what came before it, loading and the like, says nothing of the pace

    def __call__(self, done: int, total: int) -> None:
        """So much of so much is done."""
        now = self.clock()
        if self.first < 0:
            self.first, self.began, self.told = done, now, now
        if done == total and self.live and self.told > self.began:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        elif done < total and now - self.told >= (1 if self.live else 10):
            self.told = now
            left = (now - self.began) * (total - done) / (done - self.first)
            line = f"{self.what}: {done:,} of {total:,} {self.unit}, {duration(left)} left"
            if self.live:
                self.stream.write(f"\r{line}\x1b[K")
                self.stream.flush()
            else:
                write_line(self.stream, line)


def conclusion(
    end: End, start: Start | None, sample: Sample | None = None, texts: Sequence[str] = (), notes: bool = False
) -> list[str]:
    """The last words: what was reached, where it lies, advice, and the three commands that come next."""
    how = {"finished": "Finished", "stopped early": "Stopped early", "interrupted": "Interrupted"}
    steps = f"{how.get(end.reason, end.reason)} after {end.steps:,} steps"
    run = shlex.quote(end.run)
    return [
        "",
        f"{steps} and {duration(end.seconds)}, at {count(end.characters_per_second)} characters a second.",
        *([f"Best: {_losses(end)}, at step {end.best_step:,}.",
           f"The best model is in {visible(run, keep='')} ({count(end.parameters)} parameters)."]
          if end.best_step else ["There is no model yet: nothing was evaluated so far."]),
        *(f"note: {on_one_line(note)}" for note in (start.notes if start and notes else ())),
        *(f"- {on_one_line(line)}" for line in end.advice),
        "",
        "Next:",
        *([f"  charrnn fill {visible(run, keep='')} {_gap(sample)}" if end.bidirectional else
           f"  charrnn sample {visible(run, keep='')}{_prompt(sample)}",
           f"  charrnn evaluate {visible(run, keep='')} OTHER.txt"] if end.best_step else []),
        f"  charrnn train {visible(_next_training(end, start, texts), keep='')}",
    ]


def _next_training(end: End, start: Start | None, texts: Sequence[str]) -> str:
    """What follows `charrnn train`: an interrupted run resumed, a smaller model after overfitting, a text to hold some out of, more text
    where more time would change nothing, or else LONGER times as long."""
    text = shlex.join(texts or ((start.text,) if start else ("TEXT",)))
    if end.reason == "interrupted":
        return f"{text} --out {shlex.quote(end.run)} --resume"
    options = [shlex.join(start.options)] if start and start.options else []
    if end.outlook == "memory":
        return "OTHER.txt"
    if (end.reason == "stopped early" or end.outlook == "overfits") and start:
        kept = {word: "" if following.startswith("--") else following
                for word, following in itertools.pairwise((*start.options, "--")) if word.startswith("--")}
        kept |= {"--hidden": str(max(1, start.hidden // 2)), "--dropout": "0.4"}
        options = [shlex.join(word for pair in kept.items() for word in pair if word)]
        return " ".join([text, "--out", shlex.quote(_another(end.run, "smaller")), *options])
    if end.outlook == "used up":
        return " ".join([text, "MORE.txt", "--out", shlex.quote(_another(end.run, "more")), *options])
    minutes = max(1, math.ceil(LONGER * end.seconds / 60))
    nice = next((m for m in (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120) if m >= minutes), None)
    options.append(f"--time {nice}m" if nice else f"--time {math.ceil(minutes / 60)}h")
    return " ".join([text, "--out", shlex.quote(_another(end.run, "longer")), *options])


def _another(run: str, what: str) -> str:
    return f"{run.rstrip('/' + os.sep)}-{what}"


def _prompt(sample: Sample | None) -> str:
    """A word that the model wrote itself, so that it knows each of its characters; the first piece may be the end of one."""
    words = (sample.text if sample else "").split()[1:]
    good = next((word for word in words if 1 < len(word) <= 24 and visible(word) == word), None)
    return f" --prompt {shlex.quote(good)}" if good else ""


def _gap(sample: Sample | None) -> str:
    """Words that the model knows each character of, with one between them to fill."""
    words = (sample.text if sample else "").replace("[", "").replace("]", "").split()[1:]
    good = next(((a, b, c) for a, b, c in zip(words, words[1:], words[2:]) if visible(a + c) == a + c and len(b) < 9), ("", "abc", ""))
    return shlex.quote(f"{good[0]} {'_' * len(good[1])} {good[2]}".strip())


def _losses(event: Evaluation | End) -> str:
    nats, bits = figure(event.validation_nats_per_character), figure(event.validation_bits_per_character)
    perplexity = figure(event.validation_perplexity, 2)
    if event.bidirectional:
        return f"validation {nats} pseudo-nats/character, pseudo-perplexity {perplexity}"
    return f"validation {nats} nats/character = {bits} bits/character, perplexity {perplexity}"


def as_json(value: object) -> str:
    """One line of JSON: figures that are not finite as null, characters that split or hide lines escaped."""
    return escaped(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def write_line(stream: TextIO | None, line: str) -> None:
    """Write a line at once; what the stream cannot encode is written as escapes."""
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
