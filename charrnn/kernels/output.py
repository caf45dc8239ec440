"""The output layer with its loss, and a linear map: the products around the recurrent layers, by the same kernels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from charrnn.kernels.buffers import Lease

CHUNK = 1 << 22  # elements of logits held at a time: 16 MB in float32
Gradients = tuple[Any, ...]


class Lesson(NamedTuple):
    """What another model predicts, its teacher: outputs (N, K) of its last layer, its output layer w (K, V), b (V), and how much of a
    student's loss is the cross entropy with it (Hinton et al. 2015)."""

    hidden: Tensor
    w: Tensor
    b: Tensor
    share: float


def plain_nats(hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor, lesson: Lesson | None = None) -> Tensor:
    """What OutputLoss computes, by torch's own operations: the oracle, and what other devices get."""
    logits = torch.addmm(b, hidden, w)
    total = functional.cross_entropy(logits, targets, reduction="sum")
    if lesson is None:
        return total
    taught = torch.softmax(torch.addmm(lesson.b, lesson.hidden, lesson.w), 1)
    learnt = lesson.share * (functional.cross_entropy(logits, taught, reduction="sum") - total)
    return total + learnt - learnt.detach()  # the value is that of the text, the slope of both


class Linear(torch.autograd.Function):
    """forward(work, x (M, K), w (K, N), b (N) or None) -> x @ w + b"""

    @staticmethod
    def forward(ctx: Any, work: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.work = work
        ctx.save_for_backward(x, w)
        result: Tensor = work.product(x, w, b)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, w = ctx.saved_tensors
        grad, needs = grad.contiguous(), ctx.needs_input_grad
        return (None, ctx.work.product_nt(grad, w) if needs[1] else None, ctx.work.product_tn([(x, grad)]) if needs[2] else None,
                ctx.work.column_sum(grad) if needs[3] else None)


class Times(torch.autograd.Function):
    """forward(work, x, y) -> x y; y takes no gradient."""

    @staticmethod
    def forward(ctx: Any, work: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.work = work
        ctx.save_for_backward(y)
        result: Tensor = work.times(x, y)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        y, = ctx.saved_tensors
        return None, ctx.work.times(grad.contiguous(), y), None


def chunks(work: Any, hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Where a chunk's outputs stand, these, their targets, and their logits, in memory that those of the next chunk take over."""
    rows, lease = max(1, min(len(hidden), CHUNK // w.shape[1])), Lease()
    chunk = lease.tensor(w.dtype, rows, w.shape[1])
    for begin in range(0, len(hidden), rows):
        here = slice(begin, begin + rows)
        h = hidden[here]
        yield here, h, targets[here], work.product(h, w, b, out=chunk[: len(h)])
    lease.end()


def nats_at(work: Any, hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor, temperatures: Sequence[float]) -> list[float]:
    """OutputLoss without gradients, the logits divided by each of the temperatures in turn."""
    totals = [0.0] * len(temperatures)
    for _, _, target, logits in chunks(work, hidden, w, b, targets):
        for place, temperature in enumerate(temperatures):
            totals[place] += float(work.softmax_(logits / temperature, target, gradient=False).sum())
    return totals


class OutputLoss(torch.autograd.Function):
    """forward(work, gradient, hidden (N, H), w (H, V), b (V), targets (N), lesson or None) -> summed nats, float64.

    The gradients are made chunk by chunk along with the loss, while the chunk's probabilities are at hand: (N, V) is never held. With
    probabilities q, the teacher's p and the target's one-hot y, that of a chunk's logits is (1 − share)(q − y) + share (q − p), which is
    (q − y) − share (p − y): the student's slope less a share of the teacher's.
    """

    @staticmethod
    def forward(ctx: Any, work: Any, gradient: bool, hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor,
                lesson: Lesson | None) -> Tensor:
        total, taught = 0.0, chunks(work, *lesson[:3], targets) if lesson and gradient else itertools.repeat(None)
        d_hidden, d_w, d_b = (torch.empty_like(hidden), torch.zeros_like(w), torch.zeros_like(b)) if gradient else (None, None, None)
        for (here, h, target, logits), told in zip(chunks(work, hidden, w, b, targets), taught):
            total += float(work.softmax_(logits, target, gradient=gradient).sum())
            if lesson and told:
                work.softmax_(told[3], target, gradient=True)
                logits.sub_(told[3], alpha=lesson.share)
            if d_hidden is not None and d_w is not None and d_b is not None:
                work.product_nt(logits, w, out=d_hidden[here])
                work.product_tn([(h, logits)], add_to=d_w)
                d_b += work.column_sum(logits)
        ctx.work, ctx.grads = work, (d_hidden, d_w, d_b)
        return torch.tensor(total, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        if ctx.grads is None:
            raise RuntimeError("this loss's backward ran already: its gradients were handed on. Run forward again, or sum the losses.")
        grads, ctx.grads, scale = ctx.grads, None, float(grad)
        for part in grads:
            ctx.work.scale_(part, scale)
        return None, None, *grads, None, None
