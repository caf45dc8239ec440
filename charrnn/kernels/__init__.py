"""A whole sequence at once, forward and backward, for each cell, fast on CPU.

    plain     a loop over cells.step: the oracle, and what other devices get
    rowwise   PyTorch operations over whole rows: where there is no compiled kernel
    native    _sequence.c, which each thread walks with rows of its own, so that no step waits for another thread

With the compiled kernel, `precision="bfloat16"` rounds what is multiplied, float32 tensors on the CPU, to bfloat16; sums, gates and
states are float32 all the same. Elsewhere it changes nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from charrnn import cells
from charrnn.errors import UsageError
from charrnn.kernels import output, plain, rowwise, sequence
from charrnn.kernels.form import ACTIVATIONS, CELLS, Form
from charrnn.kernels.output import Lesson

__all__ = ["Lesson", "backend", "bfloat16", "linear", "multiply", "nats_at", "recur", "summed_nats"]


FLOATS = (torch.float32, torch.float64)


@functools.cache
def _work() -> ModuleType:
    """The module that computes: chosen once for the process, at the first use. CHARRNN_KERNELS=plain refuses the compiled one."""
    if os.environ.get("CHARRNN_KERNELS") != "plain":
        try:
            from charrnn.kernels import native
            return native
        except (ImportError, OSError, AttributeError):
            pass
    return rowwise


def _at(precision: str) -> Any:
    """What computes at this precision."""
    work = _work()
    return getattr(work, "LOW", work) if precision == "bfloat16" else work


def bfloat16() -> str:
    """What this processor multiplies bfloat16 with, faster than float32, where the kernels can have it do so; else ""."""
    work = _work()
    return "" if work is rowwise else str(work.bfloat16())


def backend() -> str:
    """Which kernel serves on this process's CPU: "c" or "torch"."""
    return "torch" if _work() is rowwise else "c"


def recur(cell: str, source: Tensor, w_h: Tensor | None, b_h: Tensor | None, state: tuple[Tensor, ...], *,
          tokens: Tensor | None = None, w_x: Tensor | None = None, b_x: Tensor | None = None,
          activation: str = "tanh", reset: str = "before", precision: str = "float32") -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer of `cell` (rnn, gru, lstm, mlp) over T steps: outputs (T, B, H) and the final state.

    What the input contributes to the gates, biases included, comes in one of three ways:

        source (V+1, G·H), tokens (T, B) int64   rows of a table; for V+1 smaller than T·B
        source (T, B, G·H)                       ready
        source (T, B, E), w_x (E, G·H), b_x (G·H) or None    source @ w_x + b_x, made in a buffer that is kept: a deeper layer

    w_h (H, G·H), None for mlp; b_h (H) for a gru with reset "after"; state: (B, H) tensors as cells.STATES counts them.
    activation (tanh, relu, sigmoid) is φ of an rnn or mlp. Differentiable once in source, w_x, b_x, w_h, b_h and the state;
    backward can run once. On the CPU the result does not depend on the number of threads, torch.get_num_threads().
    Raises UsageError for an unknown name and shapes that do not fit, IndexError for an id outside the table.
    """
    form = Form(cell, activation, reset)
    _check(form, source, w_h, b_h, state, tokens, w_x, b_x)
    if source.device.type != "cpu":
        return plain.recur(cell, source, w_h, b_h, state, tokens=tokens, w_x=w_x, b_x=b_x, activation=activation, reset=reset)
    if cell == "mlp":
        steps = functional.embedding(tokens, source) if tokens is not None else source
        return cells.activate(torch, activation, steps if w_x is None else functional.linear(steps, w_x.t(), b_x)), ()
    assert w_h is not None
    if tokens is not None:
        tokens = tokens.contiguous()
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(source):
            raise IndexError(f"tokens reach from {int(tokens.min())} to {int(tokens.max())}, the table has {len(source)} rows")
    w_x, b_x, b_h = (None if part is None else part.contiguous() for part in (w_x, b_x, b_h))
    return sequence.run(form, _at(precision), source.contiguous(), tokens, w_x, b_x, w_h.contiguous(), b_h,
                        tuple(part.contiguous() for part in state))


def linear(x: Tensor, w: Tensor, b: Tensor | None = None, *, precision: str = "float32") -> Tensor:
    """x (M, K) @ w (K, N) + b (N), differentiable once in all three."""
    if x.device.type != "cpu" or x.dtype not in FLOATS:
        return x @ w if b is None else torch.addmm(b, x, w)
    result: Tensor = output.Linear.apply(_at(precision), x.contiguous(), w.contiguous(), b)  # type: ignore[no-untyped-call]
    return result


def multiply(a: Tensor, b: Tensor, *, symmetric: bool = False, precision: str = "float32") -> Tensor:
    """a (M, K) @ b (K, N), outside of autograd; either may be a transpose. `symmetric`: the caller knows that the result is."""
    if a.device.type != "cpu" or a.dtype not in FLOATS or _work() is rowwise:
        return torch.mm(a, b)
    if a.stride(0) == 1 and a.shape[0] > 1:
        return _at(precision).product_tn([(a.t(), b if b.stride(1) == 1 else b.contiguous())])  # type: ignore[no-any-return]
    return _at(precision).product(a if a.stride(1) == 1 else a.contiguous(), b, symmetric=symmetric)  # type: ignore[no-any-return]


def summed_nats(hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor, *, lesson: Lesson | None = None,
                precision: str = "float32") -> Tensor:
    """What the targets (N) cost, in nats, given outputs (N, H) of the last layer and the output layer w (H, V), b (V); float64.

    Differentiable once; (N, V) is never held whole. With a `lesson` the value is the same, and the gradient is that of
    (1 − share) · nats + share · the cross entropy with what the teacher predicts. IndexError for a target outside the vocabulary.
    """
    if hidden.shape != (len(targets), len(w)) or b.shape != w.shape[1:] or not hidden.dtype == w.dtype == b.dtype:
        raise UsageError(f"kernels.summed_nats: {tuple(hidden.shape)} @ {tuple(w.shape)} + {tuple(b.shape)} for {len(targets)} targets")
    if lesson and (len(lesson.hidden) != len(targets) or lesson.w.shape[1] != len(b)):
        raise UsageError(f"kernels.summed_nats: a teacher of {tuple(lesson.hidden.shape)} @ {tuple(lesson.w.shape)} for {len(targets)} "
                         f"targets of {len(b)} symbols")
    if hidden.device.type != "cpu":
        total = output.plain_nats(hidden, w, b, targets, lesson)
        return total if hidden.device.type == "mps" else total.double()  # Metal has no float64
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(b):
        raise IndexError(f"targets reach from {int(targets.min())} to {int(targets.max())}, the vocabulary has {len(b)}")
    parts = [part.contiguous() for part in (hidden, w, b, targets)]
    lesson = lesson and Lesson(lesson.hidden.contiguous(), lesson.w.contiguous(), lesson.b.contiguous(), lesson.share)
    gradient = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    nats: Tensor = output.OutputLoss.apply(_at(precision), gradient, *parts, lesson)  # type: ignore[no-untyped-call]
    return nats


@torch.no_grad()
def nats_at(hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor, temperatures: Sequence[float]) -> list[float]:
    """`summed_nats` of the logits divided by each temperature; one product serves them all."""
    if hidden.device.type != "cpu":
        logits = torch.addmm(b, hidden, w)
        return [float(functional.cross_entropy(logits / temperature, targets, reduction="sum")) for temperature in temperatures]
    return output.nats_at(_work(), hidden.contiguous(), w.contiguous(), b.contiguous(), targets.contiguous(), temperatures)


def _check(form: Form, source: Tensor, w_h: Tensor | None, b_h: Tensor | None, state: tuple[Tensor, ...], tokens: Tensor | None,
           w_x: Tensor | None, b_x: Tensor | None) -> None:
    """Names, shapes and types fit together, so that a kernel never reads past an end."""
    if form.cell not in cells.GATES or form.activation not in ACTIVATIONS or form.reset not in ("before", "after"):
        raise UsageError(f"kernels.recur knows no {form}: cells {', '.join(cells.GATES)}; activations {', '.join(ACTIVATIONS)}")
    if len(state) != cells.STATES[form.cell]:
        raise UsageError(f"kernels.recur: {form.cell} has {cells.STATES[form.cell]} states, got {len(state)}")
    if form.cell not in CELLS:
        return
    if w_h is None:
        raise UsageError(f"kernels.recur: {form.cell} needs w_h")
    size, gates = w_h.shape[0], cells.GATES[form.cell]
    rows = source.shape[1] if tokens is None else tokens.shape[1]
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = [("w_h", w_h, (size, gates * size))]
    wanted += [("state", part, (rows, size)) for part in state]
    if form.cell == "gru" and form.reset == "after":
        if b_h is None:
            raise UsageError("kernels.recur: a gru that resets after needs b_h")
        wanted.append(("b_h", b_h, (size,)))
    if tokens is not None:
        wanted.append(("source", source, (source.shape[0], gates * size)))
        if tokens.dtype != torch.int64 or tokens.dim() != 2 or not tokens.shape[0] or w_x is not None:
            raise UsageError("kernels.recur: tokens are int64 (T, B) with T at least 1, and take no w_x")
    elif w_x is not None:
        wanted += [("source", source, (*source.shape[:2], w_x.shape[0])), ("w_x", w_x, (w_x.shape[0], gates * size)),
                   ("b_x", b_x, (gates * size,))]
    else:
        wanted.append(("source", source, (source.shape[0], rows, gates * size)))
    for name, part, shape in wanted:
        if part is not None and (tuple(part.shape) != shape or part.dtype != w_h.dtype or w_h.dtype not in FLOATS):
            raise UsageError(f"kernels.recur: {name} is {tuple(part.shape)} {part.dtype}, expected {shape} {w_h.dtype}")
