"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from charrnn.model import Model


def learning_rate(step: int, steps: int, peak: float, *, warmup: float = 0.1, floor: float = 0.02) -> float:
    """Linear warm-up over a share of the steps, then a cosine from `peak` down to `floor` times it (Loshchilov and Hutter 2017)."""
    rising = max(1.0, warmup * steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    way = (step - rising) / max(1.0, steps - rising)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(way, 1.0))))


def adamw(model: Model, peak: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); biases and the embedding are not decayed."""
    plain = [p for name, p in model.named_parameters() if p.ndim < 2 or name == "embedding"]
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and name != "embedding"]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99), fused=True)


def clip(parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
    """Scale the gradients down to a joint norm of at most `limit`; returns the norm that they had."""
    grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
    if norm > limit:
        torch._foreach_mul_(grads, limit / norm)
    return norm
