"""The processes that train one model, as each of them sees it; a process alone is a world of its own, in which nothing is to be agreed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from charrnn import machine
from charrnn.errors import UsageError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
State = tuple[Mapping[str, Any], Mapping[str, Any], str]  # tensors, what is known about them, a warning


class Halted(Exception):
    """Something long was asked to stop."""


def bounds(total: int, parts: int) -> list[int]:
    """Where `parts` stretches of `total` things begin, each as long as the others or longer by one; and where the last one ends."""
    return [total * part // parts for part in range(parts + 1)]


class Gradients:
    """The sum of the shards' gradients, in the order of the shards: here torch adds each to those before it."""

    def take(self) -> None:
        """The gradients of the next of this process's shards are made."""

    def summed(self, nats: Sequence[float], said: Sequence[float]) -> tuple[list[float], list[list[float]]]:
        """Every parameter's gradient over all shards is in its place; returns the nats of each shard, and what each process said."""
        return list(nats), [list(said)]


@dataclass(frozen=True)
class World:
    """This one process: each method gives back what it is given. `distributed.Joined` has the same methods for many.

    rank, size: this process and how many there are. local, beside: likewise on this host. again: this job trained before it lost a
    process, and goes on now. What every process has to call at the same place is marked ‖.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    beside: int = 1
    again: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """The work is done, or has failed."""

    def cores(self) -> int:
        """How many of the host's cores are this process's share."""
        return max(1, machine.cores() // self.beside)

    def device(self, name: str) -> torch.device:
        """The device that an option names. UsageError."""
        return machine.device(name)

    def begun(self) -> None:
        """From now on an attempt that fails is gone on with."""

    def agree(self, *said: float) -> list[list[float]]:
        """‖ What each process says, in the order of ranks."""
        return [list(said)]

    def shared(self, value: Value) -> Value:
        """‖ What rank 0 gives, a value of JSON."""
        return value

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """‖ Give all processes the values of rank 0's tensors."""

    def carried(self, load: Callable[[], State]) -> State:
        """‖ A state that rank 0 loads."""
        return load()

    def rows(self, part: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """‖ The rows (B, H) of all processes, of which each gives its own, as many as `counts` says."""
        return part

    def in_turn(self, work: Callable[[], Value]) -> Value:
        """‖ The same work by each process of a host, after the first one has done it and left what is to be found for the others. However
        long it takes, nobody who waits takes it for hanging."""
        return work()

    def lead(self, work: Callable[[Callable[[], bool]], Value], stop: Callable[[], bool]) -> Value | None:
        """‖ Rank 0 works, and asks now and then whether to stop; any process can say so. Halted. The others get None."""
        return work(stop)

    def alike(self, what: Mapping[str, str], advice: str) -> None:
        """‖ UsageError unless all processes have the same values by these names."""

    def gradients(self, parameters: Iterable[torch.nn.Parameter], shards: int) -> Gradients:
        """‖ What sums the gradients of so many shards."""
        return Gradients()


def place(environment: Mapping[str, str] = os.environ) -> dict[str, int]:
    """This process's place among others, as torchrun tells it. UsageError."""
    names = {"rank": "RANK", "size": "WORLD_SIZE", "local": "LOCAL_RANK", "beside": "LOCAL_WORLD_SIZE"}
    size = environment.get("WORLD_SIZE", "")
    if not size.isdigit() or int(size) == 1:
        return {}
    if missing := [name for name in (*names.values(), "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]:
        raise UsageError(f"WORLD_SIZE is {size}, but {', '.join(missing)} are not set: start the processes with torchrun")
    return {field: int(environment[name]) for field, name in names.items()}
