"""What a window costs and how its gradients are found: step by step as torch does it, or on a GPU recorded once and then replayed."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from charrnn.kernels import Lesson, summed_nats
from charrnn.model import Masks, Model, State, detached

# Each tower of a model that reads both ways learns to predict alone too, with this weight beside the two together: whoever fills gaps needs
# it. With 0, 0.25, 0.5 the two reached 0.710, 0.726, 0.737 pseudo-nats on The Time Machine, the forward one alone 1.94, 1.65, 1.61 nats.
ALONE = 0.5
TAUGHT = 0.5  # how much of a student's loss is the cross entropy with what its teacher predicts


class Rows(NamedTuple):
    """Some rows of a window: inputs, targets (T, B) and `after`, as batches.Window has them, the state before, what each layer drops, and
    the outputs (T, B, H) of the teacher's last layer, where there is one."""

    inputs: Tensor
    targets: Tensor
    after: Tensor
    before: State
    masks: Sequence[Masks]
    taught: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All that they consist of."""
        parts = [self.taught, *(part for mask in self.masks for part in (mask.weights, mask.outputs))]
        return [self.inputs, self.targets, self.after, *itertools.chain(*self.before), *(part for part in parts if part is not None)]

    def copy(self) -> Rows:
        """The same in memory of their own."""
        def own(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.clone()

        return Rows(self.inputs.clone(), self.targets.clone(), self.after.clone(),
                    tuple(tuple(part.clone() for part in layer) for layer in self.before),
                    [Masks(own(mask.weights), own(mask.outputs)) for mask in self.masks], own(self.taught))


def costs(model: Model, hidden: Tensor, targets: Tensor, count: int, nats_of: Callable[..., Tensor] = summed_nats) -> tuple[Tensor, Tensor]:
    """What the output layer sees (T, B, H; 2H of a model that reads both ways) and the targets (T, B) → what they add to the nats per token
    of `count` tokens, and what the gradient is taken of."""
    w, b, targets = model.output["w"], model.output["b"], targets.flatten()
    loss = total = nats_of(hidden.flatten(0, 1), w, b, targets) / count
    if model.config.bidirectional:
        for side, part in zip(hidden.chunk(2, dim=2), w.chunk(2)):
            total = total + ALONE * nats_of(side.flatten(0, 1).contiguous(), part, b, targets) / count
        total = total / (1 + 2 * ALONE)
    return loss, total


class Losses(nn.Module):
    """What rows of a window cost, in a batch of `batch` rows, to a model that may have a teacher's output layer (w, b) to learn from."""

    def __init__(self, model: Model, batch: int, precision: str, teacher: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.batch, self.precision, self.teacher = model, batch, precision, teacher

    def forward(self, rows: Rows) -> tuple[Tensor, Tensor, State]:
        """What they add to the nats per token of all rows, what the gradient is taken of, and the state after."""
        model, how = self.model, dict[str, Any](masks=rows.masks, precision=self.precision)
        if model.config.bidirectional:
            hidden, state = model.both(rows.inputs, rows.after, rows.before, model.zero_state(rows.inputs.shape[1]), **how)
        else:
            hidden, state = model.hidden(rows.inputs, rows.before, **how)
        count, nats_of = len(rows.targets) * self.batch, functools.partial(summed_nats, precision=self.precision)
        if self.teacher and rows.taught is not None:
            nats_of = functools.partial(nats_of, lesson=Lesson(rows.taught.flatten(0, 1), *self.teacher, TAUGHT))
        loss, total = costs(model, hidden, rows.targets, count, nats_of)
        return loss.detach(), total, detached(state)


class Learning:
    """Adds the gradients of rows to those that are there; returns what they cost, and the state after."""

    def __init__(self, losses: Losses) -> None:
        self.losses = losses

    def __call__(self, rows: Rows) -> tuple[Tensor, State]:
        loss, total, state = self.losses(rows)
        total.backward()
        return loss, state


@dataclass(frozen=True)
class Recording:
    """A graph of kernels, the tensors that they read, and those that they write: the loss, the state, the gradients."""

    graph: torch.cuda.CUDAGraph
    given: list[Tensor]
    loss: Tensor
    state: State
    gradients: tuple[Tensor, ...]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python looks for no garbage meanwhile: a graph that is freed while another is recorded spoils it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Replaying(Learning):
    """The same on a GPU, where launching kernels one by one takes several times longer than computing: for each shape of rows they are
    recorded once, forward and backward, as a CUDA graph."""

    def __init__(self, losses: Losses) -> None:
        super().__init__(losses)
        self.recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __call__(self, rows: Rows) -> tuple[Tensor, State]:
        given = rows.tensors()
        shape = tuple(one.shape for one in given)
        if shape not in self.recordings:
            self.recordings[shape] = self.record(rows.copy())
        found = self.recordings[shape]
        torch._foreach_copy_(found.given, given)
        found.graph.replay()
        for p, grad in zip(self.losses.parameters(), found.gradients):  # the next replay writes over them
            p.grad = grad.clone(memory_format=torch.contiguous_format) if p.grad is None else p.grad.add_(grad)
        return found.loss, tuple(tuple(part.clone() for part in layer) for layer in found.state)

    def record(self, rows: Rows) -> Recording:
        """The rows are kept, for later ones to be put in their place."""
        def work() -> tuple[Tensor, State, tuple[Tensor, ...]]:
            leaves = {name: p.detach().requires_grad_() for name, p in self.losses.named_parameters()}
            loss, total, state = torch.func.functional_call(self.losses, leaves, (rows,))
            return loss, state, torch.autograd.grad(total, list(leaves.values()))

        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what the libraries do at a first call is not to be recorded
            work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with uncollected(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            found = work()
        return Recording(graph, rows.tensors(), *found)
