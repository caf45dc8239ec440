"""Text that comes by the command line or by stdin, and text that goes to stdout."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any, TextIO

from charrnn.errors import DataError, UsageError
from charrnn.visible import visible

LONGEST = 4 << 20  # bytes that are read from stdin


def received(given: str, option: str) -> str:
    """A text of the command line, read from stdin where it is -. DataError when that is not UTF-8, or does not end."""
    if given != "-":
        return given
    if sys.stdin is None:
        raise DataError(f"stdin: closed: there is no {option} to read")
    data = sys.stdin.buffer.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise DataError(f"stdin: {option} is longer than {LONGEST:,} bytes; give its last part")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: {option} is not UTF-8 at byte {error.start}") from None


def known(given: str, tokenizer: Any, notes: list[str], option: str = "--prompt", mark: str = "") -> str:
    """The text that `option` gave, in the Unicode form that the model knows most of, composed or not. `notes` get a line where that is
    another form, and one for what it has never seen, but for `mark`, which is no part of the text; they are to be shown once nothing can
    be refused any more. UsageError, and DataError as `received`."""
    prompt = received(given, option)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option}: not UTF-8 at character {error.start}") from None

    def bare(text: str) -> str:
        return text.replace(mark, "") if mark else text

    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, prompt)
        if other != prompt and tokenizer.strangers(bare(other)) < tokenizer.strangers(bare(prompt)):
            prompt = other
            notes.append(f"{option} is read in Unicode form {form}, as the training text is written")
    if unknown := tokenizer.unknown(bare(prompt)):
        notes.append(f"the model has never seen {' '.join(map(repr, unknown[:20]))}: read as an unknown symbol")
    return prompt


class Writer:
    """Text to stdout as it comes. On a terminal, control characters that a model may have learnt are shown, not obeyed, unless `raw`."""

    def __init__(self, stream: TextIO, raw: bool = False) -> None:
        self.stream, self.shown, self.last = stream, stream.isatty() and not raw, "\n"

    def __call__(self, text: str) -> None:
        self.last = text[-1:] or self.last
        self.stream.write(visible(text) if self.shown else text)
        self.stream.flush()

    def end_line(self) -> None:
        """So that what follows, a shell's prompt or the next sample, begins a line."""
        if self.last != "\n":
            self("\n")


def write_path(path: Path) -> None:
    """Where something was written, as a line of stdout."""
    Writer(sys.stdout)(f"{path}\n")
