"""gzip and zstd unpacked as streams: whatever the sizes, memory holds a block of each side and the format's window."""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

SUFFIXES = (".gz", ".zst")
BLOCK = 1 << 20  # bytes unpacked at once, at most
SLICE = 1 << 15  # packed bytes at once: what follows a member's end is copied, and members may be tiny
HEAD = 10  # bytes that tell what a file is, at most
WINDOW = 27  # 128 MiB, all that `zstd` itself allows without a --long above 27


class Member(Protocol):
    """One gzip member or zstd frame on its way: the interface of the standard library's decompressors."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class GzipMember:
    """zlib's decompressor with that interface."""

    def __init__(self) -> None:
        self._zlib, self._left, self._full = zlib.decompressobj(zlib.MAX_WBITS | 16), b"", False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._left and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._left + data, max_length)
        self._left = self._zlib.unconsumed_tail
        self._full = len(piece) == max_length  # there may be more, made of what was given already
        return piece


def zstd_frames() -> tuple[Callable[[], Member], type[Exception]]:
    """What makes a decompressor of one frame, and what that raises. ValueError where zstd is not installed."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise ValueError("zstd data, which cannot be read here: pip install backports.zstd, or unpack it") from None
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


def kind_of(head: bytes) -> str:
    """"gzip" or "zstd" where the first bytes of a file say so, else "". None of them begins a text in UTF-8, but for what begins a zstd
    frame to be skipped: P to _, *M and a control character."""
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    return "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"*M\x18" and head[0] >> 4 == 5) else ""


def unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a file as they were before gzip or zstd; those of any other file as they are.

    Members and frames that follow each other are one text, zeros after a gzip member are padding. ValueError for what is damaged or cut
    short, and where zstd is not installed.
    """
    first = b""
    for block in blocks:
        first += block
        if len(first) >= HEAD:
            break
    whole = itertools.chain([first] if first else [], blocks)
    kind = kind_of(first)
    if not kind:
        yield from whole
        return
    new: Callable[[], Member] = GzipMember
    broken: type[Exception] = zlib.error
    if kind == "zstd":
        new, broken = zstd_frames()
    try:
        yield from members(whole, new, b"\0" if kind == "gzip" else b"")
    except EOFError:
        raise ValueError(f"cut short: its {kind} data do not end; get a whole copy") from None
    except broken as error:
        if "too much memory" in str(error):
            raise ValueError(f"its zstd window is larger than {1 << WINDOW >> 20} MiB: pack it anew without --long") from None
        raise ValueError(f"damaged {kind} data ({error}); get a whole copy") from None


def members(blocks: Iterable[bytes], new: Callable[[], Member], padding: bytes) -> Iterator[bytes]:
    """What the members are one after the other, in pieces of at most BLOCK bytes; EOFError where the last one does not end."""
    member: Member | None = None
    for block in blocks:
        for place in range(0, len(block), SLICE):
            data = block[place : place + SLICE]
            while data or (member and not member.needs_input):
                if member is None:
                    data = data.lstrip(padding) if padding else data
                    if not data:
                        break
                    member = new()
                piece = member.decompress(data, BLOCK)
                data = b""
                if piece:
                    yield piece
                if member.eof:
                    data, member = member.unused_data, None
    if member:
        raise EOFError
