"""Known texts: from a mirror folder or their address, checked by SHA-256, put in place whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO

from charrnn.errors import DataError, StorageError, UsageError

TIMEOUT = 20.0  # seconds without an answer
ATTEMPTS = 3  # times that a download which was cut goes on from where it was
BLOCK = 1 << 16

NETWORK = (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError)

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Entry:
    """A text of the catalogue. Without `sha256` it is this Python's documentation, which differs between versions."""

    title: str
    author: str
    file: str
    bytes: int | None
    sha256: str | None
    addresses: tuple[str, ...]
    licence: str


def catalogue() -> dict[str, Entry]:
    """The known texts by name."""
    listed = json.loads(resources.files("charrnn").joinpath("catalogue.json").read_text(encoding="utf-8"))
    return {name: Entry(**{**fields, "addresses": tuple(fields["addresses"])}) for name, fields in listed.items()}


def fetch(name: str, folder: Path = Path("data"), *, mirror: Path | None = None, progress: Progress | None = None,
          entries: Mapping[str, Entry] | None = None) -> Path:
    """Put the text `name` into `folder`; the path of the file.

    Looked for in this order: the folder itself, `mirror`, the folder in $CHARRNN_CORPORA, the addresses. `progress` is
    told the bytes that are there and, if known, those there will be. A file that is there is never overwritten. Raises
    UsageError, DataError, StorageError.
    """
    entries = catalogue() if entries is None else entries
    if name not in entries:
        raise UsageError(f"{name}: no text of that name is known; known are {', '.join(entries)}")
    entry, target = entries[name], Path(folder) / entries[name].file
    try:
        if present(target, entry):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.sha256 is None:
            return place([python_docs()], target, None)
        troubles = []
        for source in (mirror, os.environ.get("CHARRNN_CORPORA")):
            copy = Path(source, entry.file) if source else None
            try:
                found = digest_of(copy) if copy and copy.is_file() else ""
            except OSError as error:
                troubles.append(f"{copy} cannot be read: {error.strerror or error}")
                continue
            if copy and found == entry.sha256:
                return place(blocks_of(copy), target, entry.sha256)
            if found:
                troubles.append(wrong(str(copy), entry.sha256, found))
            elif source and source is mirror:
                troubles.append(f"{copy} is not there")
        for address in entry.addresses:
            try:
                return download(address, target, entry, progress)
            except (DataError, *NETWORK) as error:
                troubles.append(f"{address}: {getattr(error, 'reason', None) or error}")
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from None
    if not entry.addresses:
        troubles.append("no address is known that has these very bytes")
    raise DataError(f"{name} could not be had: {'; '.join(troubles)}. Give a folder that holds {entry.file} with "
                    f"--mirror or in CHARRNN_CORPORA")


def present(target: Path, entry: Entry) -> bool:
    """Whether the text is in place already; raises DataError where another file has its name."""
    if not os.path.lexists(target):
        return False
    if not target.is_file():
        raise DataError(f"{target}: is there and is not a file: move it away, or choose another folder")
    if entry.sha256 is None:
        return target.stat().st_size > 0
    if (found := digest_of(target)) != entry.sha256:
        raise DataError(f"{target}: another file of that name is there (SHA-256 {found}, expected {entry.sha256}), and "
                        f"is left as it is: move it away, or choose another folder")
    return True


def python_docs() -> bytes:
    """The topics of `help()`, in the order of their names."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise DataError("this Python has no documentation texts (pydoc_data.topics): fetch another text") from None
    return "\n".join(topics[name].strip("\n") + "\n" for name in sorted(topics)).encode()


def download(address: str, target: Path, entry: Entry, progress: Progress | None) -> Path:
    """From an address by way of a .part file, going on where an earlier download stopped.

    Raises DataError for wrong bytes, which are removed; the errors of NETWORK, which leave the .part file.
    """
    part = target.with_name(target.name + ".part")
    for attempt in range(ATTEMPTS):
        with opened(part) as file:
            try:
                whole = receive(address, file, entry, progress)
            except (http.client.HTTPException, TimeoutError, ConnectionError):
                if attempt == ATTEMPTS - 1:
                    raise
                whole = False
            except DataError:
                part.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
        if whole:
            break
    else:
        raise DataError("the connection was cut several times: run the command again to go on from where it was")
    if (found := digest_of(part)) != entry.sha256:
        part.unlink()
        raise DataError(wrong("what came", entry.sha256 or "", found))
    settle(part, target)
    return target


def receive(address: str, file: IO[bytes], entry: Entry, progress: Progress | None) -> bool:
    """Append to `file` what it lacks; whether it is whole now."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(address, headers={"User-Agent": "charrnn"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing comes after what we have: it is whole, or it is not this text
            if have != entry.bytes:
                file.truncate(0)
                return False
            return True
        raise
    with answer:
        range_ = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or not range_ or int(range_[1]) != have:  # the whole text, whatever was asked for
            have = 0
            file.seek(0)
            file.truncate()
        if answer.status == 206 and not (range_ and int(range_[1]) == have):
            return False
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else entry.bytes
        while True:
            if progress:
                progress(have, total)
            try:
                block = answer.read(BLOCK)
            except OSError as error:  # the network's, not the disk's
                raise ConnectionError(error.strerror or str(error)) from None
            if not block:
                return total is None or have >= total
            have += len(block)
            if entry.bytes is not None and have > entry.bytes:
                raise DataError(f"more than the {entry.bytes:,} bytes of this text came: it is refused")
            file.write(block)


def place(blocks: Iterator[bytes] | list[bytes], target: Path, sha256: str | None) -> Path:
    """Write a file that is at hand; raises DataError where it does not have the digest (any more)."""
    part = target.with_name(target.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    digest = hashlib.sha256()
    with opened(part) as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if sha256 is not None and digest.hexdigest() != sha256:
        part.unlink()
        raise DataError(wrong(str(target), sha256, digest.hexdigest()))
    settle(part, target)
    return target


def settle(part: Path, target: Path) -> None:
    """Move a whole file into its place, for good."""
    if os.path.lexists(target):
        raise DataError(f"{target}: another file of that name has come there meanwhile, and is left as it is; {part} "
                        f"holds the text")
    os.replace(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def opened(part: Path) -> IO[bytes]:
    """A .part file to read and to go on with, never by way of a link."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(fd, "r+b")


def blocks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises DataError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        for block in blocks_of(path):
            digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def wrong(what: str, expected: str, found: str) -> str:
    """The words for a digest that does not match."""
    return f"{what} has not the bytes expected (SHA-256 {found}, expected {expected}) and is refused"
