"""The processes that are compared: started, given turns one after the other, and summed up."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.shapes import Settings, Shape

ROOT = Path(__file__).parents[1]
# Settings of threads and allocators: none is passed on, so that each side has its own defaults.
TUNING = ("GOMP_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
SPIN = """import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6): pass
"""


def environment() -> dict[str, str]:
    """This process's, without what would tune one side or both."""
    return {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}


@dataclass(frozen=True)
class Spread:
    """Medians of the turns, in one unit: their median, least and largest."""

    median: float
    low: float
    high: float
    turns: int = 1

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def per_second(self, amount: float) -> Spread:
        """Seconds for an amount as a rate."""
        return Spread(amount / self.median, amount / self.high, amount / self.low, self.turns)

    def times(self, factor: float) -> Spread:
        return Spread(factor * self.median, factor * self.low, factor * self.high, self.turns)


@dataclass
class Side:
    """A worker process, `facts` as it told them; `turns` are the medians of its turns, in seconds a step."""

    kind: str
    arguments: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)  # of turns beside a busy process

    def __enter__(self) -> Self:
        arguments = {name: vars(value) if isinstance(value, Shape) else value for name, value in self.arguments.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps({"kind": self.kind, **arguments})], cwd=ROOT, env=environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def ready(self) -> Self:
        """Wait until it is."""
        self.facts = self._heard()
        return self

    def turn(self, settings: Settings) -> float:
        """Let it work now; the median seconds of its steps."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"steps": settings.steps, "seconds": settings.seconds}) + "\n")
        self.process.stdin.flush()
        times: list[float] = self._heard()
        return statistics.median(times)

    def _heard(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.kind} {dict(self.arguments)} ended with code {self.process.wait()}; its words are above")
        return json.loads(line)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def spread(self) -> Spread:
        return Spread.of(self.turns)


def facts(kind: str, **arguments: Any) -> dict[str, Any]:
    """What a worker has to tell that takes no turns."""
    with Side(kind, arguments) as side:
        return side.ready().facts


@contextlib.contextmanager
def started(sides: Mapping[str, Side]) -> Iterator[None]:
    """All of them running and ready; they idle until it is their turn."""
    with contextlib.ExitStack() as stack:
        for side in sides.values():
            stack.enter_context(side)
        for side in sides.values():
            side.ready()
        yield


def interleaved(sides: Mapping[str, Side], settings: Settings) -> None:
    """A B A B …; the steps that warm up stand before each side's first turn and are not counted."""
    with started(sides):
        for _ in range(settings.rounds):
            for side in sides.values():
                side.turns.append(side.turn(settings))


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """One other process that wants a core all the time."""
    other = subprocess.Popen([sys.executable, "-S", "-c", SPIN], env=environment())
    try:
        time.sleep(0.3)  # until it is under way
        yield
    finally:
        other.kill()
        other.wait()
