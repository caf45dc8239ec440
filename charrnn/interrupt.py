"""Ctrl-C, SIGTERM and SIGHUP, so that a run loses nothing by them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """Ended by a signal of this `number` right where it was heard; the text says what of the work is left."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class Interrupt:
    """What a command does when it hears a signal: while it is `armed` the first one sets `signal`, and `say` answers at once; any other
    raises Stopped, and one that comes while that ends the process ends it on the spot.

    Python hears a signal between two of its own instructions, and one call of a kernel may take seconds. So the answer comes from a
    thread, which is told of the signal by the system itself. `say` is called there, and only there.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.signal, self.armed = say, 0, False
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._answer, args=(reading,), name="answers", daemon=True).start()
        self.unraisable, sys.unraisablehook = sys.unraisablehook, self.lost
        for number in SIGNALS:
            signal.signal(number, self.heard)

    def _answer(self, reading: int) -> None:
        """The thread: answer the first signal that does not end the process anyway."""
        while number := os.read(reading, 1):
            if number[0] in SIGNALS and self.armed:
                with contextlib.suppress(OSError):  # stderr is gone
                    self.say("stopping: this step is finished and saved first; once more stops at once")
                return

    def heard(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = not self.signal, self.signal or number
        if self.armed and first:
            return
        for other in SIGNALS:
            signal.signal(other, lambda number, frame: os._exit(128 + number))
        left = "the last state that was saved is whole, --resume goes on from it" if self.armed else "nothing was left to save"
        raise Stopped(number, f"stopped; {left}")

    def lost(self, what: Any) -> None:
        """Python drops what is raised in a finalizer, and says so. Stopped is not lost: `signal` tells of it, after the next step."""
        if not isinstance(what.exc_value, Stopped):
            self.unraisable(what)
