"""Many processes that train one model: torch's process groups (gloo on CPU, NCCL on GPU), told of each other by torchrun."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from charrnn import machine
from charrnn.container import opened, sealed
from charrnn.errors import CharRNNError, LostError, ToldError, UsageError
from charrnn.exchange import Exchange, Silence, answered, gather
from charrnn.interrupt import Stopped
from charrnn.visible import duration
from charrnn.world import Gradients, Halted, State, Value, World

ROLL_CALL = 10.0  # seconds that processes which are still there have to say so
STARTING = 60.0  # seconds that a process may come later than the others, at least
BEAT = 1.0  # seconds between two signs of life of a process that works while the others wait


@dataclass(frozen=True)
class Joined(World):
    """One of several processes. `store`, `job`: what all can read and write, of this attempt and of all; `timeout` in seconds."""

    store: Any = None
    job: Any = None
    timeout: float = 300.0

    @classmethod
    def joined(cls, timeout: float, *, rank: int, size: int, local: int, beside: int) -> Self:
        """Find the others, as torchrun's environment tells; LostError where they do not come."""
        allowed, coming = timedelta(seconds=timeout), max(timeout, STARTING)
        try:
            found, *_ = next(iter(rendezvous("env://", rank, size, timeout=timedelta(seconds=coming))))
            job = PrefixStore("charrnn", found)
            attempt = meet(job, rank, size, coming)
            store = PrefixStore(f"attempt/{attempt}", job)
            store.set(f"place/{rank}", f"process {os.getpid()} on {socket.gethostname()}")
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
            distributed.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size,
                                           timeout=allowed)
            store.set(f"joined/{rank}", "")
            end = time.monotonic() + coming
            while not store.check([f"joined/{other}" for other in range(size)]):  # whoever left now would leave others half connected
                if time.monotonic() > end:
                    raise RuntimeError("not all have joined")
                time.sleep(0.01)
            return cls(rank, size, local, beside, job.check(["begun"]), store, job, timeout)
        except RuntimeError as error:
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise LostError(f"rank {rank} on {socket.gethostname()} does not reach the {size - 1} others within {duration(coming)}: {why}"
                            ) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave. Of an error one process tells, the others end with ToldError. LostError, where one does not answer, says which."""
        if not isinstance(error, Silence):
            try:
                if error is not None:
                    self._tell(error)
            finally:
                distributed.destroy_process_group()
            return
        distributed.destroy_process_group()  # so that whoever waits for this process notices
        how = f"did not answer within {duration(self.timeout)} (--timeout)" if "imed out" in str(error) else "is gone"
        told: list[str] = []
        calling = threading.Thread(target=self._call, args=[how, told], daemon=True)  # the store may be out of reach too
        calling.start()
        calling.join(ROLL_CALL + 2)
        line, = told[:1] or [f"rank {self.rank} on {socket.gethostname()} does not reach the others"]
        if line.isdigit():
            raise ToldError(int(line)) from None
        raise LostError(f"{line}; --resume goes on from the last state that was saved") from None

    def _tell(self, error: BaseException) -> None:
        """Let the first process that fails speak, and no other."""
        code = error.exit_code if isinstance(error, CharRNNError) else 128 + error.number if isinstance(error, Stopped) else 1
        with contextlib.suppress(RuntimeError):
            if self.store.add("told", 1) > 1:
                raise ToldError(code) from None
            self.store.set("code", str(code))
        if isinstance(error, CharRNNError) and self.rank and not isinstance(error, ToldError) and not error.placed:
            raise type(error)(f"rank {self.rank} on {socket.gethostname()}: {error}") from None

    def _call(self, how: str, found: list[str]) -> None:
        """Who is still there? Leaves the line that this process is to say, or the exit code where another one has spoken."""
        with contextlib.suppress(RuntimeError):
            began = time.monotonic()
            self.store.set(f"here/{self.rank}", "")
            while True:
                if self.store.check(["code"]):
                    found.append(self.store.get("code").decode())
                    return
                gone = [rank for rank in range(self.size) if not self.store.check([f"here/{rank}"])]
                if len(gone) <= 1 or time.monotonic() > began + min(ROLL_CALL, self.timeout):
                    break
                time.sleep(0.05)
            if self.store.add("told", 1) > 1:
                self.store.wait(["code"])
                found.append(self.store.get("code").decode())
                return
            self.store.set("code", str(LostError.exit_code))
            names = [f"rank {rank} ({self.store.get(f'place/{rank}').decode()})" for rank in gone[:8]]
            found.append(f"{', '.join(names)} {how}" if names else
                         f"a process took longer than {duration(self.timeout)} to answer: give a longer --timeout")

    def device(self, name: str) -> torch.device:
        if name in ("auto", "cuda") and torch.cuda.is_available():
            if torch.cuda.device_count() < self.beside:
                raise UsageError(f"--device {name}: {self.beside} processes on a host with {torch.cuda.device_count()} GPUs; start one "
                                 "a GPU (--nproc-per-node), or give --device cpu")
            torch.cuda.set_device(self.local)
            name = f"cuda:{self.local}"
        return machine.device(name)

    def begun(self) -> None:
        with answered():
            self.job.set("begun", "")

    def agree(self, *said: float) -> list[list[float]]:
        mine = torch.tensor(said, dtype=torch.float64)
        every = mine.new_empty(self.size * len(said))
        with answered():
            gather(every, mine)
        found: list[list[float]] = every.view(self.size, -1).tolist()
        return found

    def shared(self, value: Value) -> Value:
        found: Value = json.loads(self._bytes(json.dumps(value).encode() if not self.rank else b""))
        return found

    def _bytes(self, data: bytes) -> bytearray:
        """‖ Rank 0's bytes."""
        size = torch.tensor([len(data)])
        with answered():
            distributed.broadcast(size, 0)
            found = bytearray(data.ljust(int(size), b"\0"))
            if found:
                distributed.broadcast(torch.frombuffer(found, dtype=torch.uint8), 0)
        return found

    def spread(self, tensors: Iterable[Tensor]) -> None:
        with answered():
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def carried(self, load: Callable[[], State]) -> State:
        if self.rank:
            return *opened(self._bytes(b"")), self.shared("")
        tensors, about, warning = load()
        self._bytes(sealed(tensors, {name: value for name, value in about.items() if name not in ("sha256", "format")}))
        return tensors, about, self.shared(warning)

    def rows(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        most = max(counts)
        padded = part.new_zeros(most, part.shape[1])
        padded[: len(part)] = part
        every = part.new_empty(self.size * most, part.shape[1])
        with answered():
            gather(every, padded)
        return torch.cat([rows[:count] for rows, count in zip(torch.split(every, most), counts)])

    def in_turn(self, work: Callable[[], Value]) -> Value:
        if self.local:
            self._wait(self.rank - self.local)
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=[done], daemon=True)
        beating.start()
        try:
            found = work()
        finally:
            done.set()
            beating.join()
        with answered():
            self.store.set(f"done/{self.rank}", "")
        for rank in range(self.size):
            self._wait(rank)
        return found

    def _beat(self, done: threading.Event) -> None:
        with contextlib.suppress(RuntimeError):
            while not done.wait(BEAT):
                self.store.add(f"beat/{self.rank}", 1)

    def _wait(self, rank: int) -> None:
        """Wait until that rank has done its work, as long as it shows signs of life."""
        seen, since = -1, time.monotonic()
        with answered():
            while not self.store.check([f"done/{rank}"]):
                if (beat := self.store.add(f"beat/{rank}", 0)) != seen:
                    seen, since = beat, time.monotonic()
                if time.monotonic() - since > self.timeout or self.store.check(["code"]):
                    raise Silence("timed out")
                time.sleep(0.05)

    def lead(self, work: Callable[[Callable[[], bool]], Value], stop: Callable[[], bool]) -> Value | None:
        def asked(working: bool = True) -> bool:
            said = self.agree(working, stop())
            return bool(said[0][0]) and any(other for _, other in said)

        if not self.rank:
            found = work(asked)
            asked(working=False)
            return found
        while (said := self.agree(False, stop()))[0][0]:
            if any(other for _, other in said):
                raise Halted
        return None

    def alike(self, what: Mapping[str, str], advice: str) -> None:
        first = self.shared(dict(what))
        for name, value in what.items():
            if others := [rank for rank, (other,) in enumerate(self.agree(value != first[name])) if other]:
                names = [f"rank {rank} ({self.store.get(f'place/{rank}').decode()})" for rank in others[:4]]
                error = UsageError(f"{', '.join(names)}: {name} is not that of rank 0; {advice}")
                error.placed = True
                raise error

    def gradients(self, parameters: Iterable[torch.nn.Parameter], shards: int) -> Gradients:
        return Exchange(self, list(parameters), shards)


def meet(job: Any, rank: int, size: int, timeout: float) -> int:
    """The number of this attempt, the same for all processes. A store that lives on while processes are started again still holds what
    earlier ones wrote; so each asks under a name of its own, and rank 0 answers until all have said that they heard it. RuntimeError.

    (torchrun's own count of restarts will not do: each host has its own.)
    """
    if rank:
        name = secrets.token_hex(8)
        job.set(f"hello/{rank}", name)
        job.wait([name], timedelta(seconds=timeout))
        attempt = int(job.get(name))
        job.set(f"met/{attempt}/{rank}", "")
        return attempt
    answers: dict[int, str] = {}
    attempt, end = int(job.add("attempts", 1)), time.monotonic() + timeout
    while missing := [other for other in range(1, size) if not job.check([f"met/{attempt}/{other}"])]:
        for other in missing:
            if job.check([f"hello/{other}"]) and answers.get(other) != (name := job.get(f"hello/{other}").decode()):
                answers[other] = name
                job.set(name, str(attempt))
        if time.monotonic() > end:
            raise RuntimeError(f"rank {', '.join(map(str, missing[:8]))} did not come")
        time.sleep(0.01)
    return attempt
