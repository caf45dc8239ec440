"""The output layer with its loss against torch's own, whole and in chunks."""

import pytest
import torch
from torch.nn import functional

from charrnn import loss

N, H, V = 23, 5, 11


def parts():
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
    return make(N, H), make(H, V), make(V), torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 5 * V, 1 << 20])
def test_equals_cross_entropy_with_its_gradients(chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    hidden, w, b, targets = parts()
    ours = loss.summed_nats(hidden, w, b, targets)
    plain = functional.cross_entropy(hidden @ w + b, targets, reduction="sum")
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)
    for mine, theirs in zip(torch.autograd.grad(3 * ours, (hidden, w, b)), torch.autograd.grad(3 * plain, (hidden, w, b)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


def test_no_gradient_is_made_where_none_is_asked_for():
    hidden, w, b, targets = parts()
    with torch.no_grad():
        assert not loss.summed_nats(hidden, w, b, targets).requires_grad
