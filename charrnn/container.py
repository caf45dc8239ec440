"""A file in the safetensors format as a stranger may have made it: bytes in, checked tensors and a checked description out.

    8 bytes    the length of the header
    header     {"__metadata__":{"charrnn":"{\\"sha256\\":\\"...\\", our JSON}"},"name":{"dtype":...,"shape":...,"data_offsets":...}, ...}
    the rest   the tensors, one after the other, without a gap

The digest is taken over the whole file with zeros in its own place, and is checked first. It shows damage, not malice: whoever makes a
file can make its digest too. So nothing is trusted, and nothing costs more memory than a few times what was read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as pack

from charrnn.errors import CheckpointError, UsageError

FORMAT = 1
LARGEST = 16 << 30  # bytes of a file
HEADER = 16 << 20  # of its header, nearly all of which is the vocabulary
TABLE = 1 << 20  # of the part of the header that lists the tensors
TENSORS = 4096
ITEMS = 400_000  # values in our JSON
NAMES = 20_000  # of them with a name
TYPES = {name: np.dtype(name_of) for name, name_of in (
    ("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("I64", "<i8"), ("I32", "<i4"), ("I16", "<i2"), ("I8", "i1"), ("U64", "<u8"),
    ("U32", "<u4"), ("U16", "<u2"), ("U8", "u1"), ("BOOL", "?"))}

_ZEROS = b"0" * 64
_LEAD = b'{"__metadata__":{"charrnn":"{\\"sha256\\":\\"'
_DIGEST = slice(8 + len(_LEAD), 8 + len(_LEAD) + 64)
_JSON = re.compile(rb'\\",(?:[^"\\\x00-\x1f\x80-\xff]++|\\["\\])*+"\}[,}]')  # the rest of our JSON as it stands in the header

Tensors = Mapping[str, NDArray[Any]]


def sealed(tensors: Tensors, about: Mapping[str, Any]) -> bytes:
    """A file of tensors and what is to be known about them: the same content, the same bytes. UsageError where `opened` would refuse it."""
    rest = _canonical({"format": FORMAT, **about})
    data = bytearray(pack(dict(tensors), {"charrnn": '{"sha256":"' + "0" * 64 + '",' + rest[1:]}))
    if not data.startswith(_LEAD + _ZEROS, 8):
        raise AssertionError("safetensors has changed the order of its header")
    if int.from_bytes(data[:8], "little") > HEADER or _crowded(rest):
        raise UsageError("the vocabulary is too large for a run's file; try a smaller --vocab-size, or --level subword or byte")
    data[_DIGEST] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def opened(data: bytearray) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors of a file, as views of its bytes, and what is known about them. CheckpointError for all that `sealed` would not write."""
    if not data.startswith(_LEAD, 8):
        raise CheckpointError("not a file that charrnn wrote")
    digest = hashlib.sha256(memoryview(data)[: _DIGEST.start])
    digest.update(_ZEROS)
    digest.update(memoryview(data)[_DIGEST.stop :])
    if digest.hexdigest().encode() != data[_DIGEST]:
        raise CheckpointError("damaged (its SHA-256 does not fit); restore it from a copy, or train again")
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER, len(data) - 8):
        raise CheckpointError(f"its header is {length:,} bytes long: more than the file, or than any run, has")
    try:
        found = _JSON.match(data, _DIGEST.stop, 8 + length)
        if not found:
            raise ValueError("its description is not written as charrnn writes it")
        end = found.end() - 2
        about = _described(data[_DIGEST.stop + 3 : end - 1].replace(rb"\\", b"\0").replace(rb"\"", b'"').replace(b"\0", b"\\").decode())
        return _tensors(_table(bytes(data[end : 8 + length])), data, 8 + length), {"sha256": digest.hexdigest(), **about}
    except (ValueError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"not a file that charrnn wrote: {str(error) or 'nonsense'}"[:300]) from None


def _canonical(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _crowded(text: str) -> bool:
    """Whether a JSON text would become more objects than any run has: their size in memory is many times that in the text."""
    return text.count(",") + text.count("[") + text.count("{") > ITEMS or text.count(":") > NAMES


def _described(rest: str) -> dict[str, Any]:
    """Our JSON, less the digest; written anew it must be the same: no name twice, no NaN, no number that JSON has not."""
    if _crowded(rest):
        raise ValueError("its description holds more than any run's")
    about: dict[str, Any] = json.loads("{" + rest)
    version = about.get("format")
    if type(version) is int and version > FORMAT:
        raise CheckpointError(f"written by a newer charrnn (format {version}, this one reads {FORMAT}); upgrade charrnn")
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(f"of no format that charrnn knows: {str(version)[:40]}")
    if _canonical(about)[1:] != rest:
        raise ValueError("its description is not written as charrnn writes it")
    check_plain(about)
    return about


def check_plain(value: Any, depth: int = 8) -> None:
    """ValueError unless a value from JSON is harmless to show and to count with: not deep, its numbers finite and below 2^64."""
    if isinstance(value, dict | list):
        if not depth:
            raise ValueError("its description is too deep")
        for item in value.values() if isinstance(value, dict) else value:
            check_plain(item, depth - 1)
    elif isinstance(value, int) and not -(2**64) <= value <= 2**64:
        raise ValueError("a number in its description is too large")


def _table(header: bytes) -> dict[str, Any]:
    """The part of a header that lists the tensors, from the metadata's end on."""
    if len(header) > TABLE or header.count(b"{") > TENSORS:
        raise ValueError("it lists more tensors than any run has")
    text = header.decode("ascii").rstrip(" ")
    return {} if text == "}}" else dict(json.loads("{" + text.removeprefix("},"), object_pairs_hook=_once))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a tensor twice")
    return found


def _tensors(table: dict[str, Any], data: bytearray, place: int) -> dict[str, NDArray[Any]]:
    """The tensors of a table, which must fill the file from `place` to its end, in the table's order."""
    tensors, first = {}, place
    for name, entry in table.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name[:40]!r} has wrong fields")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in TYPES or not isinstance(shape, list) or len(shape) > 4 or any(
                type(size) is not int or not 0 <= size <= LARGEST for size in shape):
            raise ValueError(f"tensor {name[:40]!r} has no type or shape that charrnn knows")
        size = math.prod(shape) * TYPES[dtype].itemsize
        if offsets != [place - first, place - first + size] or place + size > len(data) or place % TYPES[dtype].itemsize:
            raise ValueError(f"tensor {name[:40]!r} does not lie where it should")
        tensors[name] = np.frombuffer(data, TYPES[dtype], math.prod(shape), place).reshape(shape)
        place += size
    if place != len(data):
        raise ValueError(f"{len(data) - place:,} bytes at its end belong to nothing")
    return tensors


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors of a file and what is known about them, see `opened`. CheckpointError, with the path."""
    try:
        return opened(_bytes_of(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; is it the folder of a run?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _bytes_of(path: Path) -> bytearray:
    """All bytes of a regular file that begins as ours do; read, never mapped: a map of a file that is cut short ends the process."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if not os.pread(fd, 8 + len(_LEAD), 0)[8:] == _LEAD:
            raise CheckpointError("not a file that charrnn wrote")
        if status.st_size > min(LARGEST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
            raise CheckpointError(f"{status.st_size:,} bytes: larger than this machine's memory, or than any run")
        data, place = bytearray(status.st_size), 0
        with open(fd, "rb", buffering=0, closefd=False) as file:
            while place < len(data) and (count := file.readinto(memoryview(data)[place:])):
                place += count
            if place < len(data) or file.read(1):
                raise CheckpointError("it was changed while it was read")
        return data
    finally:
        os.close(fd)
