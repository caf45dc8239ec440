"""Ctrl-C, SIGTERM and SIGHUP, so that a run loses nothing by them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """Ended by a signal of this `number` right where it was heard; the text says what of the work is left."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class Interrupt:
    """What a command does when it hears a signal: while it is `armed` the first one sets `signal`, and `say` answers at once; any other
    raises Stopped, and one that comes while that ends the process ends it on the spot."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.signal, self.armed = say, 0, False
        for number in SIGNALS:
            signal.signal(number, self.heard)

    def heard(self, number: int, frame: FrameType | None) -> None:
        if self.armed and not self.signal:
            self.signal = number
            with contextlib.suppress(RuntimeError, OSError):  # stderr was in the middle of a line, or is gone
                self.say("stopping: this step is finished and saved first; once more stops at once")
            return
        for other in SIGNALS:
            signal.signal(other, lambda number, frame: os._exit(128 + number))
        left = "the last state that was saved is whole, --resume goes on from it" if self.armed else "nothing was left to save"
        raise Stopped(number, f"stopped; {left}")
