"""Files that are whole or absent, and the lock that leaves a run's folder to one process."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from charrnn.errors import LockedError, StorageError, UsageError

LOCK, ASIDE = ".lock", ".aside"
NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """What the disk says no to, as one line with the path and the cause."""
    try:
        yield
    except OSError as error:
        hint = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EROFS: "choose another place with --out",
                errno.EACCES: "choose another place with --out", errno.EPERM: "choose another place with --out"}
        advice = hint.get(error.errno or 0, "check the disk")
        raise StorageError(f"{path}: cannot write: {error.strerror or error}; {advice}") from None


def write_whole(path: Path, data: bytes, previous: Path | None = None) -> None:
    """Put `data` at `path` so that at any moment the old content or the new is there, whole; the old one is kept as `previous`, where
    that is given. StorageError.

    What was written is read again before it takes its place: a disk that loses bytes without a word costs the new content only.
    """
    aside = path.with_name(f".{path.name}{ASIDE}")
    with storage(path):
        try:
            fd = os.open(aside, os.O_RDWR | NEW, 0o666)  # less the user's umask
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
                if not holds(fd, data):
                    raise OSError(errno.EIO, "what was written cannot be read again")
            finally:
                os.close(fd)
            if previous is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, previous)
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise
        flush(path.parent)


def holds(fd: int, data: bytes) -> bool:
    """Whether a file's content is `data`."""
    view, place, block = memoryview(data), 0, 1 << 20
    while piece := os.pread(fd, block, place):
        if piece != view[place : place + len(piece)]:
            return False
        place += len(piece)
    return place == len(data)


def flush(folder: Path) -> None:
    """Wait until what a folder lists is on the disk; raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Make a run's folder and be the only process in it, until the end or, at the latest, the end of the process.

    What counts is the lock (flock) on the file .lock: one that a killed process left behind is no obstacle. What that process was
    writing aside is removed; so are, at the end, folders that were made here and stayed empty. UsageError for what is no
    folder, LockedError (which names the other process), StorageError.
    """
    if os.path.lexists(run) and not run.is_dir():
        raise UsageError(f"{run}: not a folder; name another place with --out")
    with storage(run):
        made = [folder for folder in (run, *run.parents) if not folder.exists()]
        fd = _locked(run)
    try:
        with storage(run):
            for path in run.glob(f".*{ASIDE}"):
                path.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            (run / LOCK).unlink()  # while it is still held: who waits for it finds it without a name, and makes another
            for folder in made:
                folder.rmdir()
        os.close(fd)


def _locked(run: Path) -> int:
    """A descriptor of the lock file, locked; raises OSError."""
    import fcntl

    while True:
        run.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # another process has just removed the folder that it had made
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise LockedError(f"{run}: in use by process {holder}, which trains in it; wait for its end, or name another folder "
                              "with --out") from None
        except OSError:
            return fd  # a file system without locks
        if os.fstat(fd).st_nlink:
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
            return fd
        os.close(fd)


def _holder(fd: int) -> str:
    """The process id in a lock file; a process that has just taken the lock gets a moment to write it down."""
    for _ in range(50):
        time.sleep(0.01)
        said = os.pread(fd, 20, 0)
        if said.isdigit():
            return said.decode()
    return "another"
