"""The optimizer and its schedule: Muon on the matrices between layers and steps, AdamW on all else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from charrnn.kernels import adamw_, column_squares, mix_, polar
from charrnn.model import Model

MOMENTUM, DECAY = 0.95, 0.02
BETAS, EPSILON = (0.9, 0.99), 1e-8
# A quintic whose iteration drives singular values towards 1 (Jordan et al. 2024); three steps train as well as their five.
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 3


def schedule(way: float, *, warmup: float = 0.1, floor: float = 0.02) -> float:
    """The share of the peak rate after a share `way` of the run: linear warm-up, then a cosine down to `floor` (Loshchilov and Hutter
    2017)."""
    if way < warmup:
        return way / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min((way - warmup) / (1 - warmup), 1.0)))


def orthogonalised(matrix: Tensor, *, precision: str = "float32") -> Tensor:
    """About U Vᵀ for a matrix U S Vᵀ, by Newton and Schulz's iteration; `precision` as in kernels."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    found = polar(x / torch.linalg.matrix_norm(x).clamp_min(1e-30), QUINTIC, ITERATIONS, precision=precision)
    return found.T if tall else found


class AdamW:
    """AdamW without decay (Loshchilov and Hutter 2019). torch's own class loads torch's compiler, which takes longer than all else that
    comes before the first step."""

    def __init__(self, parameters: Iterable[Tensor], betas: tuple[float, float] = BETAS) -> None:
        self.parameters, self.betas = list(parameters), betas
        self.moments = [{"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                        for p in self.parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of each parameter that has a gradient."""
        found = [(p, p.grad, moments) for p, moments in zip(self.parameters, self.moments) if p.grad is not None]
        if found:
            adamw_(*zip(*found), lr=lr, betas=self.betas, eps=EPSILON)


class Optimizer:
    """Muon (Jordan et al. 2024: momentum, made orthogonal) on input and recurrent matrices at `matrix_lr`; AdamW on
    embedding, output layer and biases at `lr`. A one-hot first layer's W_x is an embedding.

    With `evening`, the share that a step leaves of their mean squares, all gates of all units move about as far (NorMuon, Li et al. 2025).
    """

    def __init__(self, model: Model, lr: float, matrix_lr: float, *, precision: str = "float32", evening: float = 0.0) -> None:
        self.lr, self.matrix_lr, self.precision, self.evening = lr, matrix_lr, precision, evening
        tables = () if model.config.embedding else [f"{tower}.0.w_x" for tower in model.config.towers]
        self.matrices = {name: p for name, p in model.named_parameters()
                         if name.startswith(model.config.towers) and p.ndim == 2 and name not in tables}
        self.rest = {name: p for name, p in model.named_parameters() if name not in self.matrices}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        self.squares = {name: torch.zeros_like(p[0]) for name, p in self.matrices.items() if evening}
        self.adamw = AdamW(self.rest.values())

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One update from the gradients, which are used up, at a share of the peak rates."""
        self.adamw.step(self.lr * share)
        for name, p in self.matrices.items():
            if p.grad is None:
                continue
            momentum = self.momentum[name]
            mix_(momentum, p.grad, MOMENTUM, 1 - MOMENTUM)
            mix_(p.grad, momentum, 1 - MOMENTUM, MOMENTUM)  # Nesterov's
            direction, rate = orthogonalised(p.grad, precision=self.precision), self.matrix_lr * share
            mix_(p, direction, 1 - rate * DECAY, -rate * math.sqrt(max(1.0, p.shape[1] / p.shape[0])), self.evened(name, direction))
        self.clear()

    def evened(self, name: str, direction: Tensor) -> Tensor | None:
        """What the columns of a matrix's step are multiplied by, so that all are as large as they have been on average, and the whole as
        large as it was."""
        if name not in self.squares:
            return None
        now, mean = column_squares(direction), self.squares[name]
        mean.lerp_(now, 1 - self.evening)
        factors = mean.clamp_min(1e-20).rsqrt()
        return factors.mul_((now.sum() / (now * factors.square()).sum().clamp_min(1e-20)).sqrt())

    def clear(self) -> None:
        """Forget the gradients."""
        forget((*self.matrices.values(), *self.rest.values()))

    def reset(self) -> None:
        """Forget the gradients and all moments."""
        self.clear()
        for value in self.state().values():
            value.zero_()

    def state(self) -> dict[str, Tensor]:
        """All that an exact resume needs, by name; the tensors themselves, not copies."""
        return {f"momentum.{name}": value for name, value in self.momentum.items()} | {
            f"squares.{name}": value for name, value in self.squares.items()} | {
            f"{key}.{name}": value for name, moments in zip(self.rest, self.adamw.moments) for key, value in moments.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The reverse of `state`."""
        for name, value in self.state().items():
            value.copy_(state[name])


def forget(parameters: Iterable[Tensor]) -> None:
    """Their gradients are used up."""
    for p in parameters:
        p.grad = None


def clip(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale the gradients down to a joint norm of at most `limit`; returns the norm that they had."""
    grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
    if norm > limit:
        torch._foreach_mul_(grads, limit / norm)
    return norm
