"""A text turned into tokens block by block, by this process or by several: the same blocks either way, in the order of the text.

Each of the others is asked for one block at a time and answers before it is asked again, so that neither a pipe nor memory fills up. It
knows no torch, ends when its pipe does, and is done without where it ends before: what it was asked for is then encoded here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from charrnn.fingerprint import Hashes, Sketch
from charrnn.tokenizer import Tokenizer
from charrnn.tokens import canonical, utf8

MOST = 16  # processes
WORTH = {"char": 32 << 20, "byte": 32 << 20, "word": 8 << 20, "subword": 8 << 20}  # bytes of text for which one more process pays
PROGRAM = "from charrnn.encoding import serve; serve()"

Part = tuple[str | None, str]  # what stands before a stretch of text, as far as a sketch needs it (None: it needs none), and the stretch
Encode = Callable[[Iterable[Part]], Iterator["Block"]]


@dataclass(frozen=True)
class Block:
    """A stretch of text as tokens: `data`, as a store has them; how many; how many of them are unknown characters; the text's bytes as
    UTF-8; `counts` (V), how often each token is in it; the hashes that a sketch needs of it."""

    data: bytes
    tokens: int
    unknown: int
    bytes: int
    counts: NDArray[np.int64]
    hashes: Hashes


class Encoder:
    """Encodes one block after the other, here."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.dtype, self.sketch = tokenizer, np.min_scalar_type(tokenizer.size - 1), Sketch()

    def __call__(self, part: Part) -> Block:
        before, text = part
        ids = self.tokenizer.encode(text)
        known = self.tokenizer.model_ids(ids)
        return Block(
            known.astype(self.dtype).tobytes(), len(ids), int(np.count_nonzero(ids > self.tokenizer.size)), len(utf8(text)),
            np.bincount(known, minlength=self.tokenizer.size), np.empty(0, np.uint64) if before is None else self.sketch.read(before, text))


@contextlib.contextmanager
def encoding(tokenizer: Tokenizer, size: int) -> Iterator[Encode]:
    """What encodes a text of `size` bytes that is cut at the tokenizer's borders, with as many processes as pay and as there are cores.
    They end with the context, however that ends."""
    here = Encoder(tokenizer)
    count = processes(tokenizer.level, size)
    if count < 2:
        yield functools.partial(map, here)
        return
    crew = Crew(here)
    try:
        crew.start(count)
        yield crew
    finally:
        crew.end()


def processes(level: str, size: int) -> int:
    """How many processes pay for a text of so many bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, size // WORTH[level], MOST)


class Crew:
    """Processes that encode, each asked in turn."""

    def __init__(self, here: Encoder) -> None:
        self.here, self.children = here, list[subprocess.Popen[bytes] | None]()

    def start(self, count: int) -> None:
        folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
        config, payload = self.here.tokenizer.to_bytes()
        for at in range(count):
            try:
                self.children.append(subprocess.Popen([sys.executable, "-P", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                      stderr=subprocess.DEVNULL, env=environment))
            except OSError:  # no more processes, or no memory for them
                self.children.append(None)
            self._send(at, canonical(config), payload)

    def __call__(self, parts: Iterable[Part]) -> Iterator[Block]:
        asked: deque[tuple[int, Part]] = deque()
        for number, part in enumerate(parts):
            if len(asked) == len(self.children):
                yield self._answer(*asked.popleft())
            at, (before, text) = number % len(self.children), part
            self._send(at, b"" if before is None else b"sketch", utf8(before or ""), utf8(text))
            asked.append((at, part))
        while asked:
            yield self._answer(*asked.popleft())

    def end(self) -> None:
        for at in range(len(self.children)):
            self._drop(at)

    def _send(self, at: int, *values: bytes) -> None:
        if (child := self.children[at]) and child.stdin:
            try:
                send(child.stdin, *values)
            except OSError:
                self._drop(at)

    def _answer(self, at: int, part: Part) -> Block:
        if (child := self.children[at]) and child.stdout:
            try:
                data, numbers, counts, hashes = receive(child.stdout)
                tokens, unknown, size = struct.unpack("<3q", numbers)
                return Block(data, tokens, unknown, size, np.frombuffer(counts, np.int64), np.frombuffer(hashes, np.uint64))
            except (OSError, EOFError):
                self._drop(at)
        return self.here(part)

    def _drop(self, at: int) -> None:
        """End a process, and do without it."""
        if child := self.children[at]:
            self.children[at] = None
            child.kill()
            for pipe in filter(None, (child.stdin, child.stdout)):
                with contextlib.suppress(OSError):  # what it was to be sent is lost with it
                    pipe.close()
            child.wait()


def serve() -> None:
    """What one of the processes does: encode what comes from stdin, to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that asks
    source, target = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        config, payload = receive(source)
        encode = Encoder(Tokenizer.from_bytes(json.loads(config), payload))
        while True:
            sketched, before, text = receive(source)
            block = encode((before.decode() if sketched else None, text.decode()))
            numbers = struct.pack("<3q", block.tokens, block.unknown, block.bytes)
            send(target, block.data, numbers, block.counts.tobytes(), block.hashes.tobytes())


def send(pipe: IO[bytes], *values: bytes) -> None:
    """Write some values: how many, their lengths, their bytes. OSError."""
    pipe.write(struct.pack(f"<{len(values) + 1}q", len(values), *map(len, values)))
    for value in values:
        pipe.write(value)
    pipe.flush()


def receive(pipe: IO[bytes]) -> list[bytes]:
    """The values of one `send`. EOFError where the pipe ends; OSError."""
    count, = struct.unpack("<q", exactly(pipe, 8))
    return [exactly(pipe, size) for size in struct.unpack(f"<{count}q", exactly(pipe, 8 * count))]


def exactly(pipe: IO[bytes], size: int) -> bytes:
    """The next `size` bytes. EOFError, OSError."""
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
