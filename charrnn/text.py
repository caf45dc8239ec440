"""A text of one or many files, read strictly and in pieces."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from charrnn.errors import DataError, UsageError
from charrnn.sources import Source, expand, name_of

HEAD = 8192  # bytes in which a NUL makes a file look binary
BOM = "\ufeff"
ERRORS = ("strict", "replace", "ignore")
# The longest first: UTF-32's mark begins like UTF-16's.
MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


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
        """Characters start..stop−1 as they are read; all of a file up to its end, where it is seen whether it was changed meanwhile."""
        place = 0
        for source in self._sources:
            for block in self._decoded(source):
                yield block[max(0, start - place) : max(0, stop - place)]
                place += len(block)
                if place >= stop < self.characters:
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
