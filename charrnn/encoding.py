"""A text turned into tokens, or its words counted, by this process or by several: the same either way, in the order of the text.

Each of the others is asked for one part at a time and answers before it is asked again, so that neither a pipe nor memory fills up. It
knows no torch, ends when its pipe does, and is done without where it ends before: what it was asked for is then done here.
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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charrnn.fingerprint import Hashes, Sketch
from charrnn.tokenizer import Tokenizer
from charrnn.tokens import canonical, utf8
from charrnn.word import split

MOST = 16  # processes
WORTH = {"char": 32 << 20, "byte": 32 << 20, "word": 8 << 20, "subword": 8 << 20}  # bytes of text for which one more process pays
PROGRAM = "from charrnn.encoding import serve; serve()"

Part = tuple[str | None, str]  # what stands before a stretch of text, as far as a sketch needs it (None: it needs none), and the stretch
P = TypeVar("P", contravariant=True)
R = TypeVar("R", covariant=True)


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


class Work(Protocol[P, R]):
    """What is done with each part of a text, and the same in bytes, for another process: the `order` that makes it do this work, what it
    is to `ask` for a part, its `answer`, and the `result` of that."""

    def __call__(self, part: P) -> R: ...

    def order(self) -> tuple[bytes, ...]: ...

    def ask(self, part: P) -> tuple[bytes, ...]: ...

    def answer(self, *asked: bytes) -> tuple[bytes, ...]: ...

    def result(self, *answered: bytes) -> R: ...


class Encoder:
    """Encodes one block after the other."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.dtype, self.sketch = tokenizer, np.min_scalar_type(tokenizer.size - 1), Sketch()

    def __call__(self, part: Part) -> Block:
        before, text = part
        ids = self.tokenizer.encode(text)
        known = self.tokenizer.model_ids(ids)
        return Block(
            known.astype(self.dtype).tobytes(), len(ids), int(np.count_nonzero(ids > self.tokenizer.size)), len(utf8(text)),
            np.bincount(known, minlength=self.tokenizer.size), np.empty(0, np.uint64) if before is None else self.sketch.read(before, text))

    def order(self) -> tuple[bytes, ...]:
        config, payload = self.tokenizer.to_bytes()
        return canonical(config), payload

    def ask(self, part: Part) -> tuple[bytes, ...]:
        before, text = part
        return b"" if before is None else b"sketch", utf8(before or ""), utf8(text)

    def answer(self, *asked: bytes) -> tuple[bytes, ...]:
        sketched, before, text = asked
        block = self((before.decode() if sketched else None, text.decode()))
        numbers = struct.pack("<3q", block.tokens, block.unknown, block.bytes)
        return block.data, numbers, block.counts.tobytes(), block.hashes.tobytes()

    def result(self, *answered: bytes) -> Block:
        data, numbers, counts, hashes = answered
        tokens, unknown, size = struct.unpack("<3q", numbers)
        return Block(data, tokens, unknown, size, np.frombuffer(counts, np.int64), np.frombuffer(hashes, np.uint64))


class Counting:
    """Counts the words of one stretch of text after the other."""

    def __call__(self, part: str) -> Mapping[str, int]:
        return Counter(split(part))

    def order(self) -> tuple[bytes, ...]:
        return ()

    def ask(self, part: str) -> tuple[bytes, ...]:
        return (utf8(part),)

    def answer(self, *asked: bytes) -> tuple[bytes, ...]:
        return (json.dumps(self(asked[0].decode())).encode(),)

    def result(self, *answered: bytes) -> Mapping[str, int]:
        return json.loads(answered[0])  # type: ignore[no-any-return]


@contextlib.contextmanager
def spread(work: Work[P, R], level: str, size: int) -> Iterator[Callable[[Iterable[P]], Iterator[R]]]:
    """What does this work with the parts of a text of `size` bytes, by as many processes as pay and as there are cores. They start with
    the first part and end with the context, however that ends."""
    count = processes(level, size)
    if count < 2:
        yield functools.partial(map, work)
        return
    crew = Crew(work, count)
    try:
        yield crew
    finally:
        crew.end()


def processes(level: str, size: int) -> int:
    """How many processes pay for a text of so many bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, size // WORTH[level], MOST)


class Crew(Generic[P, R]):
    """Processes that work, each asked in turn."""

    def __init__(self, here: Work[P, R], count: int) -> None:
        self.here, self.count, self.children = here, count, list[subprocess.Popen[bytes] | None]()

    def start(self) -> None:
        folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
        order = self.here.order()
        for at in range(self.count):
            try:
                self.children.append(subprocess.Popen([sys.executable, "-P", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                      stderr=subprocess.DEVNULL, env=environment))
            except OSError:  # no more processes, or no memory for them
                self.children.append(None)
            self._send(at, *order)

    def __call__(self, parts: Iterable[P]) -> Iterator[R]:
        asked: deque[tuple[int, P]] = deque()
        if not self.children:
            self.start()
        for number, part in enumerate(parts):
            if len(asked) == len(self.children):
                yield self._answer(*asked.popleft())
            at = number % len(self.children)
            self._send(at, *self.here.ask(part))
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

    def _answer(self, at: int, part: P) -> R:
        if (child := self.children[at]) and child.stdout:
            try:
                return self.here.result(*receive(child.stdout))
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
    """What one of the processes does: answer what is asked on stdin, on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that asks
    source, target = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        work = ordered(*receive(source))
        while True:
            send(target, *work.answer(*receive(source)))


def ordered(*order: bytes) -> Encoder | Counting:
    """The work of an order."""
    return Encoder(Tokenizer.from_bytes(json.loads(order[0]), order[1])) if order else Counting()


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
