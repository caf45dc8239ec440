"""The fallback of the kernels where the compiled one is absent: PyTorch operations over whole rows, in place.

Buffers, all allocated by `sequence`:

    gates    (T, B, G·H)  after `forward` the gates; after `backward` the gradient of what the input contributed
    extra    (T, B, H)    lstm: C_1..C_T. gru: R_t ⊙ H_{t−1} (reset before), or H_{t−1} W_hh + b_hh (after) whose gradient
                          takes its place in `backward`. rnn: none
    outputs  (T, B, H)    H_1..H_T
    dropped  (T, B, H)    outputs · mask (B, H), where there is one: what others get to see of them
"""

from __future__ import annotations

import torch
from torch import Tensor

from charrnn.kernels.form import Form


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """a (M, K) @ b (K, N) + bias (N)."""
    if bias is not None:
        return torch.addmm(bias, a, b) if out is None else torch.addmm(bias, a, b, out=out)
    return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)


def product_nt(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """a (M, K) @ b (N, K)ᵀ."""
    return product(a, b.t(), out=out)


def product_tn(pairs: list[tuple[Tensor, Tensor]], *, add_to: Tensor | None = None) -> Tensor:
    """Σ aᵀ (K, M) @ b (K, N) over the pairs (a, b): a weight's gradient. `add_to` gets it added, in place."""
    total = add_to
    for a, b in pairs:
        total = torch.mm(a.t(), b) if total is None else total.addmm_(a.t(), b)
    assert total is not None
    return total


def scatter(rows: int, tokens: Tensor, grads: Tensor) -> Tensor:
    """(rows, N): the sum of the rows of `grads` (T·B, N) that each id of `tokens` (T·B) owns."""
    return grads.new_zeros(rows, grads.shape[1]).index_add_(0, tokens, grads)


def column_sum(grads: Tensor) -> Tensor:
    """(N): the sum over the rows of (M, N)."""
    return grads.sum(0)


def softmax_(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """What each target (N) costs in nats, (N) float64; `gradient` leaves its slope in place of the logits (N, V)."""
    own = targets[:, None]
    logits -= logits.logsumexp(dim=1, keepdim=True)
    nats = -logits.gather(1, own)[:, 0].double()
    if gradient:
        logits.exp_().scatter_add_(1, own, logits.new_full((1, 1), -1.0).expand_as(own))
    return nats


def scale_(x: Tensor, factor: float) -> None:
    """x times a number, in place."""
    x.mul_(factor)


def activate_(form: Form, x: Tensor) -> Tensor:
    """φ(x) in place."""
    if form.activation == "tanh":
        return x.tanh_()
    if form.activation == "relu":
        return x.clamp_(min=0)
    return x.sigmoid_()


def slope(form: Form, y: Tensor) -> Tensor:
    """φ'(x) from y = φ(x)."""
    if form.activation == "tanh":
        return 1 - y * y
    if form.activation == "relu":
        return (y > 0).to(y.dtype)
    return y * (1 - y)


def forward(form: Form, source: Tensor, tokens: Tensor | None, w_h: Tensor, b_h: Tensor | None, state: tuple[Tensor, ...],
            outputs: Tensor, gates: Tensor | None, extra: Tensor | None, mask: Tensor | None = None,
            dropped: Tensor | None = None) -> tuple[Tensor, ...]:
    """Fills outputs, and gates, extra and dropped where given; returns the final state. `source` may be `gates` itself."""
    steps, _, size = outputs.shape
    h = state[0]
    c = state[1] if len(state) > 1 else h
    scratch = h.new_empty(h.shape[0], w_h.shape[1]) if gates is None else h
    spare = h.new_empty(h.shape) if extra is None else h
    for t in range(steps):
        g = scratch if gates is None else gates[t]
        if tokens is not None:
            torch.index_select(source, 0, tokens[t], out=g)
        elif source is not gates:
            g.copy_(source[t])
        out = outputs[t]
        e = spare if extra is None else extra[t]
        if form.cell == "rnn":
            activate_(form, torch.addmm(g, h, w_h, out=out))
        elif form.cell == "lstm":
            g.addmm_(h, w_h)
            i, f, candidate, o = torch.split(g, size, 1)
            g[:, : 2 * size].sigmoid_()
            candidate.tanh_()
            o.sigmoid_()
            c = torch.mul(f, c, out=e).addcmul_(i, candidate)
            torch.tanh(c, out=out).mul_(o)
        else:
            r, z, candidate = torch.split(g, size, 1)
            rz = g[:, : 2 * size]
            rz.addmm_(h, w_h[:, : 2 * size]).sigmoid_()
            if form.reset == "before":
                candidate.addmm_(torch.mul(r, h, out=e), w_h[:, 2 * size :])
            else:
                assert b_h is not None
                candidate.addcmul_(r, torch.addmm(b_h, h, w_h[:, 2 * size :], out=e))
            candidate.tanh_()
            torch.sub(h, candidate, out=out).mul_(z).add_(candidate)
        h = out
    if mask is not None:
        torch.mul(outputs, mask, out=dropped)
    return (h.clone(), c.clone()) if form.cell == "lstm" else (h.clone(),)


def backward(form: Form, gates: Tensor, extra: Tensor | None, w_h: Tensor, state: tuple[Tensor, ...], outputs: Tensor,
             d_outputs: Tensor | None, d_final: tuple[Tensor | None, ...], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Turns gates (and extra of a gru that resets after) into gradients; returns those of the initial state."""
    steps, _, size = outputs.shape
    dh = torch.zeros_like(state[0]) if d_final[0] is None else d_final[0].clone()
    dc = torch.zeros_like(dh) if len(d_final) < 2 or d_final[1] is None else d_final[1].clone()
    w_t = w_h.t().contiguous()
    for t in range(steps - 1, -1, -1):
        g = gates[t]
        h_prev = outputs[t - 1] if t else state[0]
        if d_outputs is not None:
            dh += d_outputs[t] if mask is None else d_outputs[t] * mask
        if form.cell == "rnn":
            torch.mul(dh, slope(form, outputs[t]), out=g)
            torch.mm(g, w_t, out=dh)
            continue
        assert extra is not None
        if form.cell == "lstm":
            i, f, candidate, o = torch.split(g, size, 1)
            tanh_c = extra[t].tanh()
            dc.add_(dh * o * (1 - tanh_c * tanh_c))
            d_i = dc * candidate * i * (1 - i)
            d_f = dc * (extra[t - 1] if t else state[1]) * f * (1 - f)
            d_candidate = dc * i * (1 - candidate * candidate)
            dc.mul_(f)
            o.copy_(dh * tanh_c * o * (1 - o))
            i.copy_(d_i)
            f.copy_(d_f)
            candidate.copy_(d_candidate)
            torch.mm(g, w_t, out=dh)
            continue
        r, z, candidate = torch.split(g, size, 1)
        rz = g[:, : 2 * size]
        d_z = dh * (h_prev - candidate) * z * (1 - z)
        d_candidate = dh * (1 - z) * (1 - candidate * candidate)
        dh.mul_(z)
        candidate.copy_(d_candidate)
        z.copy_(d_z)
        if form.reset == "before":
            d_rh = candidate @ w_t[2 * size :]
            dh.addcmul_(d_rh, r)
            r.copy_(d_rh * h_prev * r * (1 - r))
        else:
            d_r = d_candidate * extra[t] * r * (1 - r)
            torch.mul(d_candidate, r, out=extra[t])
            r.copy_(d_r)
            dh.addmm_(extra[t], w_t[2 * size :])
        dh.addmm_(rz, w_t[: 2 * size])
    return (dh, dc) if form.cell == "lstm" else (dh,)
