"""The output layer and the cross-entropy as one: (N, V) is never held whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 22  # elements of logits held at a time: 16 MB in float32


class _OutputLoss(torch.autograd.Function):
    """The gradients are made chunk by chunk along with the loss, while the chunk's probabilities are at hand."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor) -> Tensor:
        grads = any(ctx.needs_input_grad)
        d_hidden = torch.empty_like(hidden) if grads else None
        d_w, d_b = (torch.zeros_like(w), torch.zeros_like(b)) if grads else (None, None)
        rows = max(1, CHUNK // w.shape[1])
        nats = hidden.new_zeros((), dtype=torch.float64)
        for begin in range(0, len(targets), rows):
            h, target = hidden[begin : begin + rows], targets[begin : begin + rows, None]
            log_p = torch.addmm(b, h, w)
            log_p -= log_p.logsumexp(dim=1, keepdim=True)
            nats -= log_p.gather(1, target).sum(dtype=torch.float64)
            if d_hidden is not None and d_w is not None and d_b is not None:
                d_logits = log_p.exp_().scatter_add_(1, target, log_p.new_full((1, 1), -1.0).expand_as(target))
                torch.mm(d_logits, w.T, out=d_hidden[begin : begin + rows])
                d_w.addmm_(h.T, d_logits)
                d_b += d_logits.sum(dim=0)
        ctx.save_for_backward(d_hidden, d_w, d_b)
        return nats

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        d_hidden, d_w, d_b = ctx.saved_tensors
        scale = grad.to(d_hidden.dtype)
        return d_hidden * scale, d_w * scale, d_b * scale, None


def summed_nats(hidden: Tensor, w: Tensor, b: Tensor, targets: Tensor) -> Tensor:
    """What the targets (N) cost, in nats, given outputs (N, H) of the last layer and the output layer w (H, V), b (V); float64."""
    nats: Tensor = _OutputLoss.apply(hidden, w, b, targets)  # type: ignore[no-untyped-call]
    return nats
