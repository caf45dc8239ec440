"""A layer by torch's own kernels, which are cuDNN's on a GPU. The weights are the same; the cells are those that cuDNN has."""

from __future__ import annotations

import torch
from torch import Tensor


def serves(cell: str, activation: str, reset: str) -> bool:
    """Whether cuDNN has this cell: lstm, a gru that resets after, an rnn of tanh or relu."""
    return cell == "lstm" or (cell == "gru" and reset == "after") or (cell == "rnn" and activation in ("tanh", "relu"))


def layer(cell: str, x: Tensor, w_x: Tensor, b: Tensor, w_h: Tensor, b_h: Tensor | None, state: tuple[Tensor, ...], *,
          activation: str = "tanh", precision: str = "float32") -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (T, B, inputs) → outputs (T, B, H) and the final state; weights and state as `kernels.recur` takes them.

    With `precision="bfloat16"` all that cuDNN reads and writes is in it; what is returned is in the type of the weights. (torch.autocast
    would choose float16, in which small gradients vanish.)"""
    second = torch.zeros_like(b)  # torch.nn has two biases where one would do, but for the gru's candidate
    if b_h is not None:
        second = torch.cat([second[: -len(b_h)], b_h])
    parts, kind = [w_x.t(), w_h.t(), b, second], torch.bfloat16 if precision == "bfloat16" else w_h.dtype
    whole = torch.cat([part.reshape(-1) for part in parts]).to(kind)  # in one piece, as cuDNN takes them
    weights = [one.view_as(part) for one, part in zip(torch.split(whole, [part.numel() for part in parts]), parts)]
    options = (True, 1, 0.0, torch.is_grad_enabled(), False, False)  # biases, layers, dropout, training, bidirectional, batch first
    x, states = x.to(kind), tuple(part.unsqueeze(0).to(kind).contiguous() for part in state)
    if cell == "lstm":
        outputs, h, c = torch._VF.lstm(x, states, weights, *options)
        return outputs.to(w_h.dtype), (h[0].to(w_h.dtype), c[0].to(w_h.dtype))
    run = torch._VF.gru if cell == "gru" else torch._VF.rnn_tanh if activation == "tanh" else torch._VF.rnn_relu
    outputs, h = run(x, states[0], weights, *options)
    return outputs.to(w_h.dtype), (h[0].to(w_h.dtype),)
