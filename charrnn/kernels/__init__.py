"""A whole sequence at once, forward and backward, for each cell, fast on CPU.

    plain     a loop over cells.step: the oracle, and what other devices get
    rowwise   PyTorch operations over whole rows: where there is no compiled kernel
    native    _sequence.c, which each thread walks with rows of its own, so that no step waits for another thread
"""

from __future__ import annotations

import functools
import os
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from charrnn import cells
from charrnn.errors import UsageError
from charrnn.kernels import plain, rowwise, sequence
from charrnn.kernels.form import ACTIVATIONS, CELLS, Form

__all__ = ["backend", "recur"]


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


def backend() -> str:
    """Which kernel serves on this process's CPU: "c" or "torch"."""
    return "torch" if _work() is rowwise else "c"


def recur(cell: str, source: Tensor, w_h: Tensor | None, b_h: Tensor | None, state: tuple[Tensor, ...], *,
          tokens: Tensor | None = None, w_x: Tensor | None = None, b_x: Tensor | None = None,
          activation: str = "tanh", reset: str = "before") -> tuple[Tensor, tuple[Tensor, ...]]:
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
    ready = [None if part is None else part.contiguous() for part in (w_x, b_x, w_h, b_h)]
    return sequence.run(form, _work(), source.contiguous(), tokens, *ready, tuple(part.contiguous() for part in state))


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
        if part is not None and (tuple(part.shape) != shape or part.dtype != w_h.dtype):
            raise UsageError(f"kernels.recur: {name} is {tuple(part.shape)} {part.dtype}, expected {shape} {w_h.dtype}")
