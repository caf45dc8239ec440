"""Tokens in a file that is read in pieces, and the cache folder in which such files are found again.

A file is data, a description in JSON, and a tail of fixed length: BLAKE2b over all that stands before it, the length
of the description, and a magic. It is written aside and renamed, so it is whole or absent; its digest shows damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import StorageError
from charrnn.tokens import canonical

MAGIC = b"charrnn1"
DIGEST = 32
TAIL = DIGEST + 8 + len(MAGIC)
BLOCK = 1 << 20
STALE = 24 * 3600  # seconds after which, where there are no locks, an unfinished file is taken for one whose writer was killed


class Shelf:
    """An open file: `about`, its description, and bytes at places. It is closed when nothing uses it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.about: dict[str, Any] = {}
        weakref.finalize(self, os.close, fd)

    def read(self, place: int, size: int) -> bytes:
        """Exactly `size` bytes from `place` on; raises StorageError where the file is shorter or cannot be read."""
        blocks = []
        try:
            short = place + size > os.fstat(self.fd).st_size  # before memory is asked for
            while size:
                block = b"" if short else os.pread(self.fd, size, place)
                if not block:
                    raise StorageError("the token store was cut short while it was in use: start again")
                blocks.append(block)
                place, size = place + len(block), size - len(block)
        except OSError as error:
            raise StorageError(f"the token store cannot be read: {error.strerror}") from None
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)


class Store:
    """`count` tokens as a small unsigned type, read from the file at each use (never mapped into memory)."""

    def __init__(self, shelf: Shelf, place: int, count: int, dtype: np.dtype[Any]) -> None:
        """Raises ValueError for nonsense."""
        if type(count) is not int or count < 0 or place < 0 or dtype.kind != "u":
            raise ValueError("not a store of tokens")
        self.count, self.dtype = count, dtype
        self._shelf, self._place = shelf, place

    @staticmethod
    def of(tokens: NDArray[Any]) -> Store:
        """A store of tokens that are in memory already, in a file without a name."""
        tokens = tokens.astype(np.min_scalar_type(int(tokens.max(initial=0))))
        with Writer(None) as file:
            file.write(tokens.tobytes())
            return Store(file.finish({}), 0, len(tokens), tokens.dtype)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Tokens start..stop−1, as far as there are any; not to be written to."""
        start, stop = max(0, start), min(stop, self.count)
        size = self.dtype.itemsize
        return np.frombuffer(self._shelf.read(self._place + start * size, max(0, stop - start) * size), self.dtype)


class Writer:
    """Writes a file aside and puts it in place with `finish`, or leaves nothing. One that is not `named` is gone when nothing uses it any
    more, however that ends: `path` is its folder then, and None the one for temporary files."""

    def __init__(self, path: Path | None, *, named: bool = True) -> None:
        """Raises OSError where the folder cannot be written."""
        self.path, self.aside = path if named else None, None
        if self.path is None:
            if path:
                path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as file:
                self.fd = os.dup(file.fileno())
        else:
            path = self.path
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            self.aside, self.fd = made(path)
        self._shelf = Shelf(self.fd)
        self._digest = hashlib.blake2b(digest_size=DIGEST)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.aside:
            with contextlib.suppress(OSError):
                self.aside.unlink()

    def write(self, data: bytes) -> None:
        """Append; raises OSError."""
        self._digest.update(data)
        self._append(data)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def finish(self, about: dict[str, Any]) -> Shelf:
        """Append the description and put the file in its place; raises OSError."""
        description = canonical(about)
        self.write(description)
        self._append(self._digest.digest() + len(description).to_bytes(8, "little") + MAGIC)
        if self.path and self.aside:
            os.fsync(self.fd)
            os.replace(self.aside, self.path)
            self.aside = None
        self._shelf.about = about
        return self._shelf


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left in the cache."""
    for path in folder.glob(".*.tokens.*.part"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if abandoned(fd):
                    path.unlink()
            finally:
                os.close(fd)


def made(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, locked for as long as it is open, so that `sweep` leaves it alone; raises OSError."""
    import fcntl

    while True:
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return aside, fd
        os.close(fd)  # swept before it was locked


def abandoned(fd: int) -> bool:
    """Whether no process writes this file any more."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return os.fstat(fd).st_mtime < time.time() - STALE
    return True


def opened(path: Path) -> Shelf | None:
    """The file that a Writer finished, checked against its digest; None where there is none, or a damaged one."""
    try:
        shelf = Shelf(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        status = os.fstat(shelf.fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        covered = status.st_size - TAIL
        tail = shelf.read(covered, TAIL)
        length = int.from_bytes(tail[DIGEST : DIGEST + 8], "little")
        digest = hashlib.blake2b(digest_size=DIGEST)
        for place in range(0, covered, BLOCK):
            digest.update(shelf.read(place, min(BLOCK, covered - place)))
        if not tail.endswith(MAGIC) or length > covered or digest.digest() != tail[:DIGEST]:
            return None
        about = json.loads(shelf.read(covered - length, length))
    except (OSError, ValueError, RecursionError, StorageError):
        return None
    if not isinstance(about, dict):
        return None
    shelf.about = about
    return shelf


def cache_folder() -> Path | None:
    """$CHARRNN_CACHE, else charrnn in $XDG_CACHE_HOME, else in ~/.cache; None where there is no home."""
    if own := os.environ.get("CHARRNN_CACHE"):
        return Path(own)
    if (base := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(base):
        return Path(base, "charrnn")
    try:
        return Path.home() / ".cache" / "charrnn"
    except RuntimeError:
        return None
