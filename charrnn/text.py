"""Text files, folders of them or standard input, read strictly and in pieces."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from charrnn.compression import SUFFIXES, unpacked
from charrnn.errors import DataError, StorageError, UsageError

BLOCK = 1 << 20  # bytes read at once
HEAD = 8192  # bytes in which a NUL makes a file look binary
BOM = "\ufeff"
ERRORS = ("strict", "replace", "ignore")
# The longest first: UTF-32's mark begins like UTF-16's.
MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


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
            kind, state = status.st_mode, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if stat.S_ISFIFO(kind):
                raise DataError(f"{self}: a pipe, which can be read only once: give it as standard input, - < {self}")
            if not stat.S_ISREG(kind):
                raise DataError(f"{self}: not a regular file")
            if state != (self.state or state):
                raise DataError(f"{self}: was changed while it was being read: start again")
            self.state = state
            offset = 0
            while block := os.pread(fd, min(BLOCK, status.st_size - offset), offset):
                yield block
                offset += len(block)
            if os.pread(fd, 1, offset) or offset < status.st_size:  # it grows without end, or is made as it is read, as in /proc
                raise DataError(f"{self}: has not the length that it is said to have: give a copy, or standard input, - < {self}")
        except OSError as error:
            raise DataError(f"{self}: cannot be read: {reason(error)}") from None
        finally:
            os.close(fd)


class Text:
    """The characters of some files, one after the other. Each use reads them again, so memory does not grow with them.

    `digest` is the SHA-256 of the raw bytes of all files in order (unpacked, of compressed ones), `bytes` the length as UTF-8
    without byte order marks. Raises DataError for what is not text in `encoding`.
    """

    def __init__(self, name: str, sources: Sequence[Source], encoding: str, errors: str, notes: Sequence[str] = ()) -> None:
        self.name, self.encoding, self.errors = name, encoding, errors
        self.notes = list(notes)
        self.characters = self.bytes = 0
        self._sources = tuple(sources)
        digest = hashlib.sha256()
        for source in self._sources:
            for piece in self._decoded(source, digest, first=True):
                self.characters += len(piece)
                try:
                    self.bytes += len(piece) if piece.isascii() else len(piece.encode())
                except UnicodeEncodeError:
                    raise DataError(f"{source}: read as {encoding}, it holds halves of surrogate pairs, which are no "
                                    f"characters: give its real --encoding") from None
        self.digest = digest.hexdigest()
        if not self.characters:
            raise DataError(f"{' and '.join(map(str, self._sources[:3]))}: empty; there is no text in it")

    def pieces(self, size: int = 1 << 20, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Characters start..stop−1 in pieces of `size`, but for the last, whatever the files are like."""
        waiting, length = [""], 0
        for block in self._range(start, self.characters if stop is None else min(stop, self.characters)):
            waiting.append(block)
            length += len(block)
            if length >= size:
                whole = "".join(waiting)
                end = length - length % size
                yield from (whole[place : place + size] for place in range(0, end, size))
                waiting, length = [whole[end:]], length - end
        if length:
            yield "".join(waiting)

    def _range(self, start: int, stop: int) -> Iterator[str]:
        """Characters start..stop−1 as they are read."""
        place = 0
        for source in self._sources:
            if place >= stop:
                return
            for block in self._decoded(source):
                yield block[max(0, start - place) : stop - place]
                place += len(block)
                if place >= stop:
                    return
        if place < stop:
            raise DataError(f"{self.name}: was cut short while it was being read: start again")

    def _decoded(self, source: Source, digest: Any = None, *, first: bool = False) -> Iterator[str]:
        """The decoded blocks of a file without its byte order mark; the first pass also takes the digest and notes."""
        decoder = codecs.getincrementaldecoder(self.encoding)(self.errors)
        read, lines, head, fresh = 0, 0, b"", True
        for block in self._ended(source):
            if digest:
                digest.update(block)
            head = head or block[:HEAD]
            nul = 3 * head.count(0) > len(head) > 0 and not head.startswith(tuple(mark for mark, _ in MARKS))
            if first and nul and self.encoding == "utf-8":
                raise DataError(f"{source}: looks like a binary file, not a text: a third is NUL bytes (if UTF-16: --encoding utf-16)")
            read += len(block)
            try:
                piece = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                offset = read - len(error.object) + error.start
                line = lines + error.object[: error.start].count(b"\n") + 1
                raise DataError(self._complaint(source, head, offset, line, error.object[error.start])) from None
            except (UnicodeError, ValueError) as error:
                raise DataError(f"{source}: cannot be read as {self.encoding}: {' '.join(str(error).split())}") from None
            if fresh and piece:
                fresh = False
                if piece[0] == BOM:
                    piece = piece[1:]
                    if first:
                        self.notes.append(f"a byte order mark at the start of {source} was left out")
            if first:
                lines += piece.count("\n")
            yield piece

    @staticmethod
    def _ended(source: Source) -> Iterator[bytes]:
        """The blocks of a file, then an empty one."""
        yield from source.blocks()
        yield b""

    def _complaint(self, source: Source, head: bytes, offset: int, line: int, byte: int) -> str:
        """Why bytes that are not text are refused, and what to do."""
        if self.encoding == "utf-8":
            for mark, encoding in MARKS:
                if head.startswith(mark):
                    return f"{source}: this is {encoding.upper()}, not UTF-8: read it with --encoding {encoding}"
            if b"\0" in head:
                return f"{source}: looks like a binary file, not a text (NUL bytes, and byte {offset} is not UTF-8)"
        return (f"{source}: not {self.encoding.upper()} at line {line}, offset {offset} (byte 0x{byte:02x}): give the "
                f"file's --encoding, or --errors replace to put U+FFFD for what cannot be read")


def open_text(paths: Sequence[str | Path], *, encoding: str = "utf-8", errors: str = "strict") -> Text:
    """The text of files, of folders (every .txt, .txt.gz and .txt.zst below, sorted by path) and of "-", standard input, in the
    order given. gzip and zstd are known by their first bytes, whatever the names, and are the text that they hold.

    Raises DataError for what is missing, empty or no text; UsageError for an unknown encoding; StorageError where
    standard input cannot be kept.
    """
    if not paths:
        raise UsageError("no text is given: name a file, a folder or - for standard input")
    if errors not in ERRORS:
        raise UsageError(f"--errors {errors}: choose from {', '.join(ERRORS)}")
    if [str(path) for path in paths].count("-") > 1:
        raise UsageError("- (standard input) can be given once only")
    encoding = known_encoding(encoding)
    notes: list[str] = []
    sources = [source for path in paths for source in expand(path, notes)]
    return Text(name_of(paths[0]), sources, encoding, errors, notes)


def known_encoding(encoding: str) -> str:
    """The encoding's usual name; raises UsageError for one that Python does not know or that is no text encoding."""
    try:
        found = codecs.lookup(encoding)
        b"x".decode(encoding, "ignore")  # raises LookupError for codecs that are not for text
        codecs.getincrementaldecoder(encoding)
        if found.name in ("punycode", "idna"):
            raise LookupError  # for names of hosts, and not to be read in pieces
    except (LookupError, ValueError, UnicodeError):
        raise UsageError(f"--encoding {encoding}: not an encoding that Python knows; utf-8, utf-16, cp1252 and gb18030 "
                         f"are some") from None
    return "utf-8" if found.name == "utf-8-sig" else found.name


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
