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
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from charrnn import cells, machine
from charrnn.errors import UsageError
from charrnn.kernels import output, plain, rowwise, sequence
from charrnn.kernels.form import ACTIVATIONS, CELLS, Form
from charrnn.kernels.output import Lesson

__all__ = ["Lesson", "adamw_", "backend", "bfloat16", "column_squares", "linear", "mix_", "multiply", "nats_at", "polar", "recur",
           "summed_nats", "times", "use_threads"]


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


def use_threads(count: int | None) -> int:
    """Set the number of threads, by default one a core; returns it. Where the compiled kernels serve, these are theirs, and torch's own
    operations get one: the threads of two pools would take each other's cores."""
    count = count or machine.cores()
    work = _work()
    if work is not rowwise:
        work.use_threads(count)
    torch.set_num_threads(count if work is rowwise else 1)
    return count


def backend() -> str:
    """Which kernel serves on this process's CPU: "c" or "torch"."""
    return "torch" if _work() is rowwise else "c"


def recur(cell: str, source: Tensor, w_h: Tensor | None, b_h: Tensor | None, state: tuple[Tensor, ...], *,
          tokens: Tensor | None = None, w_x: Tensor | None = None, b_x: Tensor | None = None, mask: Tensor | None = None,
          activation: str = "tanh", reset: str = "before", precision: str = "float32") -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer of `cell` (rnn, gru, lstm, mlp) over T steps: outputs (T, B, H) and the final state.

    What the input contributes to the gates, biases included, comes in one of three ways:

        source (V+1, G·H), tokens (T, B) int64   rows of a table; for V+1 smaller than T·B
        source (T, B, G·H)                       ready
        source (T, B, E), w_x (E, G·H), b_x (G·H) or None    source @ w_x + b_x, made in a buffer that is kept: a deeper layer

    w_h (H, G·H), None for mlp; b_h (H) for a gru with reset "after"; state: (B, H) tensors as cells.STATES counts them.
    mask (B, H): what outputs are multiplied by for whoever is given them, not on their way to the next step: variational dropout.
    activation (tanh, relu, sigmoid) is φ of an rnn or mlp. Differentiable once in source, w_x, b_x, w_h, b_h and the state;
    backward can run once. On the CPU the result does not depend on the number of threads (`use_threads`).
    Raises UsageError for an unknown name and shapes that do not fit, IndexError for an id outside the table.
    """
    form = Form(cell, activation, reset)
    _check(form, source, w_h, b_h, state, tokens, w_x, b_x, mask)
    if source.device.type != "cpu":
        return plain.recur(cell, source, w_h, b_h, state, tokens=tokens, w_x=w_x, b_x=b_x, mask=mask, activation=activation, reset=reset)
    if cell == "mlp":
        steps = functional.embedding(tokens, source) if tokens is not None else source
        return plain.dropped(cells.activate(torch, activation, steps if w_x is None else functional.linear(steps, w_x.t(), b_x)), mask), ()
    assert w_h is not None
    if tokens is not None:
        tokens = tokens.contiguous()
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(source):
            raise IndexError(f"tokens reach from {int(tokens.min())} to {int(tokens.max())}, the table has {len(source)} rows")
    w_x, b_x, b_h, mask = (None if part is None else part.contiguous() for part in (w_x, b_x, b_h, mask))
    return sequence.run(form, _at(precision), source.contiguous(), tokens, w_x, b_x, w_h.contiguous(), b_h, mask,
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


def _serves(*parts: Tensor) -> bool:
    """Whether the compiled kernel takes these, all of one shape."""
    one, *_ = parts
    return one.device.type == "cpu" and one.dtype in FLOATS and _work() is not rowwise and all(
        part.is_contiguous() and part.shape == one.shape and part.dtype == one.dtype for part in parts)


def mix_(x: Tensor, y: Tensor, a: float, b: float, factors: Tensor | None = None) -> None:
    """x = a x + b y, in place, outside of autograd; with `factors` (M) column j of y (N, M) times the j-th."""
    if not _serves(x, y):
        x.mul_(a).add_(y if factors is None else y * factors, alpha=b)
    elif factors is None:
        _work().mix(a, x, b, y, out=x)
    else:
        _work().mix_columns(a, x, b, y, factors.contiguous())


def column_squares(x: Tensor) -> Tensor:
    """The sums of the squares in each column of x (N, M): (M), outside of autograd."""
    return _work().column_squares(x) if _serves(x) else x.square().sum(0)


def polar(x: Tensor, quintic: tuple[float, float, float], times: int, *, precision: str = "float32") -> Tensor:
    """What `times` steps of X → (a + b X Xᵀ + c (X Xᵀ)²) X make of x (N, M), outside of autograd; the fewer rows the less it costs.

    X_k is P_k X, and all that the steps need of X is X Xᵀ: a good half of the work is saved. Polynomials of X Xᵀ, they are symmetric
    and commute.
    """
    if _serves(x) and x.shape[0] <= x.shape[1]:
        return _at(precision).polar(x, quintic, times)  # type: ignore[no-any-return]
    a, b, c = quintic
    product = functools.partial(multiply, symmetric=True, precision=precision)
    gram, whole = product(x, x.T), None
    for left in range(times - 1, -1, -1):
        factor = product(gram, gram).mul_(c).add_(gram, alpha=b)
        factor.diagonal().add_(a)
        whole = factor if whole is None else product(factor, whole)
        if left:
            gram = product(factor, product(factor, gram))
    assert whole is not None
    return multiply(whole, x, precision=precision)


def adamw_(parameters: Sequence[Tensor], grads: Sequence[Tensor], moments: Sequence[Mapping[str, Tensor]], *, lr: float,
           betas: tuple[float, float], eps: float) -> None:
    """AdamW without decay (Loshchilov and Hutter 2019); `moments` of each parameter are step, exp_avg and exp_avg_sq. Elsewhere than in
    the compiled kernel by torch's fused update."""
    exp_avg, exp_avg_sq, step = ([one[name] for one in moments] for name in ("exp_avg", "exp_avg_sq", "step"))
    if not all(map(_serves, parameters, grads, exp_avg, exp_avg_sq)):
        from torch.optim.adamw import adamw

        adamw(list(parameters), list(grads), exp_avg, exp_avg_sq, [], step, fused=True, amsgrad=False, lr=lr, beta1=betas[0],
              beta2=betas[1], eps=eps, weight_decay=0.0, maximize=False)
        return
    for p, grad, mean, square, count in zip(parameters, grads, exp_avg, exp_avg_sq, step):
        count += 1
        _work().adamw(p, grad, mean, square, step=float(count), lr=lr, betas=betas, eps=eps)


def times(x: Tensor, y: Tensor) -> Tensor:
    """x y, element by element, differentiable once in x."""
    if not _serves(x, y):
        return x * y
    result: Tensor = output.Times.apply(_work(), x, y)  # type: ignore[no-untyped-call]
    return result


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
           w_x: Tensor | None, b_x: Tensor | None, mask: Tensor | None) -> None:
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
    wanted += [("state", part, (rows, size)) for part in state] + [("mask", mask, (rows, size))]
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
