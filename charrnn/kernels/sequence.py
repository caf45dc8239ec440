"""One recurrent layer over a whole window as a single node of autograd's graph.

Forward keeps the gates; backward overwrites them with gradients (so a graph can be walked once), after which each weight's
gradient is one product over all T·B rows. `work` is the module that computes: `native` (C) or `rowwise` (PyTorch).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charrnn.kernels.buffers import Lease
from charrnn.kernels.form import Form

Gradients = tuple[Any, ...]


def run(form: Form, work: Any, source: Tensor, tokens: Tensor | None, w_x: Tensor | None, b_x: Tensor | None,
        w_h: Tensor, b_h: Tensor | None, mask: Tensor | None, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The layer, through autograd only where a gradient may be asked for. Arguments as `kernels.recur` takes them."""
    parts = [source, w_x, b_x, w_h, b_h, *state]
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts):
        outputs, *final = Sequence.apply(form, work, tokens, mask, *parts)  # type: ignore[no-untyped-call]
        return outputs, tuple(final)
    lease = Lease()
    made = compute(form, work, tokens, mask, source, w_x, b_x, w_h, b_h, state, lease, keep=False)
    lease.end()
    return made.seen, made.final


class Made(NamedTuple):
    """Outputs, what others get to see of them, the final state; where they are kept the gates and extra of the modules' heads."""

    outputs: Tensor
    seen: Tensor
    final: tuple[Tensor, ...]
    gates: Tensor | None
    extra: Tensor | None


def compute(form: Form, work: Any, tokens: Tensor | None, mask: Tensor | None, source: Tensor, w_x: Tensor | None, b_x: Tensor | None,
            w_h: Tensor, b_h: Tensor | None, state: tuple[Tensor, ...], lease: Lease, *, keep: bool) -> Made:
    """The layer forward; what only backward needs where `keep`, out of `lease`."""
    steps, rows = source.shape[:2] if tokens is None else tokens.shape
    size, width = w_h.shape
    outputs = torch.empty(steps, rows, size, dtype=w_h.dtype)
    seen = outputs if mask is None else torch.empty_like(outputs)
    gates = extra = None
    if w_x is not None or (keep and form.cell != "rnn"):
        gates = lease.tensor(w_h.dtype, steps, rows, width)
    if keep and form.cell != "rnn":
        extra = lease.tensor(w_h.dtype, steps, rows, size)
    if w_x is not None:
        assert gates is not None
        work.product(source.view(steps * rows, -1), w_x, b_x, out=gates.view(steps * rows, width))
        source = gates
    final = work.forward(form, source, tokens, w_h, b_h, state, outputs, gates, extra, mask, seen)
    return Made(outputs, seen, final, gates, extra)


class Sequence(torch.autograd.Function):
    """forward(form, work, tokens, mask, source, w_x, b_x, w_h, b_h, *state) -> outputs, *final state."""

    @staticmethod
    def forward(ctx: Any, form: Form, work: Any, tokens: Tensor | None, mask: Tensor | None, source: Tensor, w_x: Tensor | None,
                b_x: Tensor | None, w_h: Tensor, b_h: Tensor | None, *state: Tensor) -> tuple[Tensor, ...]:
        lease = Lease()
        made = compute(form, work, tokens, mask, source, w_x, b_x, w_h, b_h, state, lease, keep=True)
        ctx.form, ctx.work, ctx.lease, ctx.gates, ctx.extra, ctx.tables = form, work, lease, made.gates, made.extra, source.shape[0]
        ctx.has_bias = b_x is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(made.outputs, tokens, mask, source if w_x is not None else None, w_x, w_h, b_h, *state)
        return made.seen, *made.final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_final: Tensor | None) -> Gradients:
        outputs, tokens, mask, inputs, w_x, w_h, _, *state = ctx.saved_tensors
        form, work, lease, gates, extra = ctx.form, ctx.work, ctx.lease, ctx.gates, ctx.extra
        needs = dict(zip(("source", "w_x", "b_x", "w_h", "b_h"), ctx.needs_input_grad[4:9], strict=True))
        steps, rows, size = outputs.shape
        width = w_h.shape[1]
        if lease is None:
            raise RuntimeError("this layer's backward ran already: its gates were overwritten. Run forward again, or sum the losses.")
        ctx.lease = ctx.gates = ctx.extra = None
        if gates is None:
            gates = lease.tensor(w_h.dtype, steps, rows, width)
        d_state = work.backward(form, gates, extra, w_h, tuple(state), outputs,
                                None if d_outputs is None else d_outputs.contiguous(), d_final, mask)
        flat = gates.view(steps * rows, width)
        d_source = d_wx = d_bx = d_wh = d_bh = None
        if needs["w_h"]:
            d_wh = recurrent_gradient(form, work, gates, extra, state[0], outputs)
        if needs["b_h"]:
            d_bh = work.column_sum(extra.view(steps * rows, size))
        if w_x is not None:
            if needs["w_x"]:
                d_wx = work.product_tn([(inputs.view(steps * rows, -1), flat)])
            if needs["b_x"]:
                d_bx = work.column_sum(flat)
            if needs["source"]:
                d_source = work.product_nt(flat, w_x).view(inputs.shape)
        elif needs["source"]:
            d_source = gates.clone() if tokens is None else work.scatter(ctx.tables, tokens.view(-1), flat)
        lease.end()
        return None, None, None, None, d_source, d_wx, d_bx, d_wh, d_bh, *d_state


def recurrent_gradient(form: Form, work: Any, gates: Tensor, extra: Tensor | None, start: Tensor, outputs: Tensor) -> Tensor:
    """Σ_t H_{t−1}ᵀ · the gradient of its product (H, G·H), without a copy of H_0..H_{T−1}."""
    size, width = outputs.shape[2], gates.shape[2]

    def earlier(grads: Tensor) -> list[tuple[Tensor, Tensor]]:
        pairs = [(start, grads[0])]
        if len(grads) > 1:
            pairs.append((outputs[:-1].flatten(0, 1), grads[1:].flatten(0, 1)))
        return pairs

    if form.cell != "gru":
        return work.product_tn(earlier(gates))  # type: ignore[no-any-return]
    assert extra is not None
    result = outputs.new_empty(size, width)
    gated, last = gates[:, :, : 2 * size], gates[:, :, 2 * size :]
    result[:, : 2 * size] = work.product_tn(earlier(gated))
    if form.reset == "before":
        result[:, 2 * size :] = work.product_tn([(extra.flatten(0, 1), last.flatten(0, 1))])
    else:
        result[:, 2 * size :] = work.product_tn(earlier(extra))
    return result
