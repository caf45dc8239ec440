"""The live dashboard: a painter on a terminal's second screen, which leaves the last picture on the first."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from charrnn.events import End, Event, Sample, Start
from charrnn.lines import View, conclusion, write_line
from charrnn.picture import Story, draw
from charrnn.visible import on_one_line

REFRESH = 0.5  # seconds between two paintings: each costs a few milliseconds of a core that training wants
CLEAN, NO_WRAP, RESTORE = "\x1b[2J", "\x1b[?7l", "\x1b[?7h\x1b[?25h"  # RESTORE: lines wrap, the cursor is shown


class Dashboard(View):
    """A live picture on the terminal's second screen, where a resized window stays clean; its last state stays behind.

    What others write to sys.stderr meanwhile is a note in it, and is written out at the end. `clock` gives seconds.
    """

    def __init__(
        self, stream: TextIO, texts: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream, self.texts, self.clock, self.story = stream, texts, clock, Story()
        self.console = Console(file=stream, markup=False, emoji=False, highlight=False)
        self.at = clock()
        self.lock, self.over, self.woken = threading.RLock(), False, threading.Event()
        self.painter = threading.Thread(target=self._paint, name="dashboard", daemon=True)
        self.messages = _Messages(self._note)
        self.resources = contextlib.ExitStack()
        self.live = Live(
            console=self.console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
            get_renderable=self._picture,
        )  # fmt: skip

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, event: Event) -> None:
        with self.lock:
            self.story.add(event)
            self.at = self.clock()
        if isinstance(event, Start):
            self._open()
        elif isinstance(event, End):
            self._close()
            for line in conclusion(event, self.story.start, self.story.sample, self.texts, notes=True):
                self._say(line)

    def _open(self) -> None:
        if self.painter.is_alive():
            return
        self.resources.callback(self._write, RESTORE)
        self.resources.callback(self._last_picture)
        self.resources.callback(self.live.stop)
        self.live.start()
        self._write(NO_WRAP)  # a line that the terminal finds longer than rich does must not push the picture down
        self.resources.enter_context(contextlib.redirect_stderr(self.messages))
        self.painter.start()
        self.resources.callback(self._stop)

    def _close(self) -> None:
        """Back to the first screen, the cursor shown; leave the last picture there. Doing it again does nothing."""
        with contextlib.suppress(OSError):
            self.resources.close()

    def _stop(self) -> None:
        self.over = True
        self.woken.set()
        self.painter.join()

    def _paint(self) -> None:
        """The painter's thread. It must never end training: a terminal that is gone is not its concern."""
        shown: Sample | None = None
        with contextlib.suppress(OSError, ValueError):
            self.live.refresh()
            while not self.over:
                self.woken.wait(REFRESH)
                self.woken.clear()
                if shown is not (shown := self.story.sample):
                    # Terminals disagree about the width of some characters: nothing of the last sample may stay behind.
                    self.stream.write(CLEAN)
                self.live.refresh()

    def _picture(self) -> RenderableType:
        with self.lock:
            return draw(self.story, self.console.width, self.console.height, self.clock() - self.at)

    def _last_picture(self) -> None:
        with contextlib.suppress(OSError):
            height = max(20, min(28, self.console.height - 1))
            self.console.print(draw(self.story, self.console.width, height, self.clock() - self.at))
        for line in filter(None, [*self.messages.lines, on_one_line(self.messages.rest)]):
            write_line(self.stream, line)

    def _note(self, line: str) -> None:
        with self.lock:
            self.story.notes.append(line.removeprefix("charrnn: "))
        self.woken.set()  # it may be the answer to a Ctrl-C

    def _write(self, codes: str) -> None:
        with contextlib.suppress(OSError):
            self.stream.write(codes)
            self.stream.flush()

    def _say(self, line: str) -> None:
        command = line.startswith("  charrnn ")  # never broken into lines: it is there to be copied
        style = "cyan" if command else "bold" if line.startswith("Best:") else ""
        self.console.print(Text(line, style), soft_wrap=command)


class _Messages(io.TextIOBase):
    """Stands in for sys.stderr while the dashboard is up: keeps whole lines, and tells of each."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report, self.rest = report, ""
        self.lines: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self.rest = (self.rest + text).split("\n")
        for line in filter(None, map(on_one_line, whole)):
            self.lines.append(line)
            self.report(line)
        return len(text)
