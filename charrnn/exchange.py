"""What processes that train together send each other, step by step."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import distributed

from charrnn.world import Gradients, World, bounds

gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor  # the newer name


class Silence(Exception):
    """A process did not answer."""


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """What torch raises where a process does not answer is Silence."""
    try:
        yield
    except RuntimeError as error:
        raise Silence(str(error)) from error


class Exchange(Gradients):
    """Sums the gradients of all shards, always in the order of the shards, so that the sums do not depend on how many processes there are.

    Each process adds up one stretch of the parameters: it is sent that stretch of every shard's gradient (P bytes on the way from each
    shard, in all), then all give each other their sums (P bytes to each process).
    """

    def __init__(self, world: World, parameters: list[torch.nn.Parameter], shards: int) -> None:
        self.world, self.parameters, one = world, parameters, parameters[0]
        split = bounds(shards, world.size)
        self.counts = [end - begin for begin, end in itertools.pairwise(split)]
        self.sizes = [p.numel() for p in parameters]
        self.stretch = -(-sum(self.sizes) // world.size)
        self.own = one.new_zeros(self.counts[world.rank], world.size, self.stretch)  # each shard's gradient
        self.sums = one.new_empty(world.size * self.stretch)
        self.taken = 0

    @torch.no_grad()
    def take(self) -> None:
        flat = self.own[self.taken].view(-1)
        torch.cat([p.grad.reshape(-1) for p in self.parameters if p.grad is not None], out=flat[: sum(self.sizes)])
        for p in self.parameters:
            p.grad = None
        self.taken += 1

    @torch.no_grad()
    def summed(self, nats: Sequence[float], said: Sequence[float]) -> tuple[list[float], list[list[float]]]:
        world, most = self.world, max(self.counts)
        words = torch.tensor([*nats, *[0.0] * (most - len(nats)), *said], dtype=torch.float64)
        spoken = words.to(self.own.device).view(self.own.dtype)
        send = torch.cat([self.own.transpose(0, 1).flatten(1), spoken.expand(world.size, -1)], 1)
        sizes = [count * self.stretch + len(spoken) for count in self.counts]
        received = send.new_empty(sum(sizes))
        with answered():
            distributed.all_to_all_single(received, send.view(-1), sizes, [send.shape[1]] * world.size)
        parts = [part.tensor_split([count * self.stretch]) for part, count in zip(torch.split(received, sizes), self.counts)]
        first, *others = (row for shards, _ in parts for row in shards.view(-1, self.stretch))
        for row in others:
            first += row
        with answered():
            gather(self.sums, first)
        for p, part in zip(self.parameters, torch.split(self.sums[: sum(self.sizes)], self.sizes)):
            p.grad = part.view_as(p)
        self.taken = 0
        heard = torch.stack([words for _, words in parts]).view(torch.float64).cpu()
        return ([row[k] for row, count in zip(heard.tolist(), self.counts) for k in range(count)], heard[:, most:].tolist())
