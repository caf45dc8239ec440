"""A sequence step by step over `cells.step`, differentiated by autograd: the oracle of the kernels, right on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from charrnn import cells


def recur(cell: str, source: Tensor, w_h: Tensor | None, b_h: Tensor | None, state: tuple[Tensor, ...], *,
          tokens: Tensor | None = None, w_x: Tensor | None = None, b_x: Tensor | None = None,
          mask: Tensor | None = None, activation: str = "tanh", reset: str = "before") -> tuple[Tensor, tuple[Tensor, ...]]:
    """As `kernels.recur`, in the plainest way."""
    steps = source[tokens] if tokens is not None else source
    if w_x is not None:
        steps = steps @ w_x
        steps = steps if b_x is None else steps + b_x
    outputs = []
    for x in steps:
        new = cells.step(torch, cell, x, state, w_h, b_h, activation=activation, reset=reset)
        outputs.append(new[0])
        state = new[: cells.STATES[cell]]
    return dropped(torch.stack(outputs), mask), state


def dropped(outputs: Tensor, mask: Tensor | None) -> Tensor:
    """Outputs (T, B, H) times a mask (B, H)."""
    return outputs if mask is None else outputs * mask
