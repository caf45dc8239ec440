"""Where a text comes from: files, folders of them or standard input, as bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from charrnn.compression import SUFFIXES, unpacked
from charrnn.errors import DataError, StorageError, UsageError

BLOCK = 1 << 20  # bytes read at once


@dataclass
class Source:
    """One file: its path, or the descriptor of what was standard input; `state` tells whether it was changed since."""

    path: Path | None
    spool: int | None = None
    state: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "standard input" if self.path is None else str(self.path)

    def blocks(self) -> Iterator[bytes]:
        """The bytes of the text from the start on, unpacked where they are gzip or zstd; DataError where they cannot be read."""
        try:
            yield from unpacked(self._raw())
        except ValueError as error:
            raise DataError(f"{self}: {error}") from None

    def _raw(self) -> Iterator[bytes]:
        """The bytes of the file."""
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.dup(self.spool) if self.spool is not None else os.open(self.path or "", flags)
        except (OSError, ValueError) as error:
            raise DataError(f"{self}: cannot be read: {reason(error)}") from None
        try:
            status = os.fstat(fd)
            if stat.S_ISFIFO(status.st_mode):
                raise DataError(f"{self}: a pipe, which can be read only once: give it as standard input, - < {self}")
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{self}: not a regular file")
            self._same(status)
            offset = 0
            while block := os.pread(fd, min(BLOCK, status.st_size - offset), offset):
                yield block
                offset += len(block)
            if os.pread(fd, 1, offset) or offset < status.st_size:  # it grows without end, or is made as it is read, as in /proc
                raise DataError(f"{self}: has not the length that it is said to have: give a copy, or standard input, - < {self}")
            self._same(os.fstat(fd))
        except OSError as error:
            raise DataError(f"{self}: cannot be read: {reason(error)}") from None
        finally:
            os.close(fd)

    def _same(self, status: os.stat_result) -> None:
        """DataError where it is another file than when it was first looked at, or was written to since."""
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state != (self.state or state):
            raise DataError(f"{self}: was changed while it was being read: start again")
        self.state = state


def expand(path: str | Path, notes: list[str]) -> list[Source]:
    """The sources that one argument names. Of a text that a folder holds in several forms one is taken; a note names the other."""
    if str(path) == "-":
        return [spooled()]
    if not str(path):
        raise UsageError("the name of a text is empty: name a file, a folder or -")
    path = Path(path)
    try:
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"{path}: no such file or folder")
            return [Source(path)]
        found: list[Path] = []
        for folder, _, names in os.walk(path, onerror=raising):
            found += [Path(folder, name) for name in names if plain(name).lower().endswith(".txt")]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
    if not found:
        raise DataError(f"{path}: a folder without a .txt, .txt.gz or .txt.zst file in it or below")
    taken: dict[Path, Path] = {}
    for one in sorted(found, key=lambda one: (one.with_name(plain(one.name)).parts, one.name)):  # as if none were compressed
        form = one.with_name(plain(one.name))
        if form in taken:
            notes.append(f"{one} was left out: {taken[form]} is beside it")
        else:
            taken[form] = one
    return [Source(one) for one in taken.values()]


def plain(name: str) -> str:
    """A file's name without what a compressor appends."""
    return name[: name.rindex(".")] if name.lower().endswith(SUFFIXES) else name


def raising(error: OSError) -> None:
    """Raise: os.walk would pass over a folder that it cannot list."""
    raise error


def spooled() -> Source:
    """Standard input up to its end, in a file that has no name."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise DataError("standard input is closed: there is no text to read")
    try:
        with tempfile.TemporaryFile() as file:
            most = shutil.disk_usage(tempfile.gettempdir()).free // 2
            refuse_devices(stream)
            for block in read_all(stream):
                most -= len(block)
                if most < 0:
                    raise DataError("standard input: does not end, or is longer than half of the space that is free in "
                                    f"{tempfile.gettempdir()}: put it in a file, or name another folder in TMPDIR")
                file.write(block)
            file.flush()
            fd = os.dup(file.fileno())
    except OSError as error:
        raise StorageError(f"standard input cannot be kept in {tempfile.gettempdir()}: {reason(error)}") from None
    source = Source(None, fd)
    weakref.finalize(source, os.close, fd)
    return source


def refuse_devices(stream: IO[bytes]) -> None:
    """DataError where standard input is a device that never ends, such as /dev/zero; a terminal does."""
    with contextlib.suppress(OSError, ValueError):
        fd = stream.fileno()
        if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
            raise DataError("standard input: a device, not a text")


def read_all(stream: IO[bytes]) -> Iterator[bytes]:
    """The bytes of standard input; raises DataError where it cannot be read."""
    try:
        while block := stream.read(BLOCK):
            yield block
    except OSError as error:
        raise DataError(f"standard input: cannot be read: {reason(error)}") from None


def reason(error: OSError | ValueError) -> str:
    """What went wrong, in words."""
    if isinstance(error, OSError):
        return "it is a socket or a device" if error.errno == errno.ENXIO else error.strerror or str(error)
    return str(error)


def name_of(path: str | Path) -> str:
    """A name for a run's folder: of a file its stem, of a folder its name, "stdin" for standard input."""
    if str(path) == "-":
        return "stdin"
    full = Path(os.path.abspath(path))
    name = re.sub(r"[^\w.-]+", "_", full.name if full.is_dir() else Path(plain(full.name) or "text").stem).strip("._-")
    return name[:48] or "text"
