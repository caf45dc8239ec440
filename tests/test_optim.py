"""The optimizer against its definitions."""

import numpy as np
import pytest
import torch

from charrnn import optim
from charrnn.config import ModelConfig
from charrnn.model import Model


def newton_schulz(matrix):
    """The iteration as it is published, on the whole matrix."""
    a, b, c = optim.QUINTIC
    x = matrix / torch.linalg.matrix_norm(matrix)
    for _ in range(optim.ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 3)])
def test_orthogonalised_is_the_published_iteration(shape):
    matrix = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(optim.orthogonalised(matrix), newton_schulz(matrix), atol=1e-9, rtol=0)


def test_it_brings_singular_values_near_one_and_keeps_the_directions():
    matrix = torch.randn(6, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ optim.orthogonalised(matrix) @ v.T
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-8
    assert found.diagonal().min() > 0.65 and found.diagonal().max() < 1.25


def test_a_matrix_without_gradient_direction_stays_finite():
    assert optim.orthogonalised(torch.zeros(3, 4)).abs().max() == 0


@pytest.mark.parametrize("evening", [0.0, 0.8])
def test_adamw_on_the_rest_is_torchs_and_muon_moves_the_matrices(evening):
    """Three steps by hand: momentum with Nesterov's look ahead, made orthogonal, evened, scaled by √(out/in); decay beside it."""
    make = lambda: Model(ModelConfig(cell="gru", hidden=4, embedding=3, vocabulary=5), torch.Generator().manual_seed(1)).double()
    mine, theirs = make(), make()
    optimizer = optim.Optimizer(mine, 0.01, 0.05, evening=evening)
    assert set(optimizer.matrices) == {"layers.0.w_x", "layers.0.w_h"}
    adamw = torch.optim.AdamW([p for n, p in theirs.named_parameters() if n in optimizer.rest], lr=0.01, betas=optim.BETAS, weight_decay=0)
    momentum, squares = dict.fromkeys(optimizer.matrices, 0.0), dict.fromkeys(optimizer.matrices, 0.0)
    for number, share in enumerate((0.5, 1.0, 0.25)):
        for model in (mine, theirs):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(number + p.numel()))
        optimizer.step(share)
        adamw.param_groups[0]["lr"] = 0.01 * share
        adamw.step()
        with torch.no_grad():
            for name in optimizer.matrices:
                p = dict(theirs.named_parameters())[name]
                momentum[name] = 0.95 * momentum[name] + 0.05 * p.grad
                ahead = 0.05 * p.grad + 0.95 * momentum[name]
                rate, direction = 0.05 * share, newton_schulz(ahead)
                if evening:
                    squares[name] = evening * squares[name] + (1 - evening) * direction.square().sum(0)
                    evened = direction / squares[name].sqrt()
                    direction = evened * torch.linalg.matrix_norm(direction) / torch.linalg.matrix_norm(evened)
                p.copy_(p * (1 - rate * optim.DECAY) - rate * np.sqrt(max(1, p.shape[1] / p.shape[0])) * direction)
    for (name, mine_p), theirs_p in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine_p, theirs_p, atol=1e-8, rtol=0, msg=name)


def test_evening_leaves_alone_what_does_not_move():
    model = Model(ModelConfig(cell="rnn", hidden=4, embedding=3, vocabulary=5))
    optimizer = optim.Optimizer(model, 0.01, 0.05, evening=0.9)
    before = model.layers[0].w_h.detach().clone()
    for dead in (True, False):
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if dead else torch.ones_like(p)
        model.layers[0].w_h.grad[:, 1] = 0
        optimizer.step(1.0)
        assert all(p.isfinite().all() for p in model.parameters())
        assert torch.allclose(model.layers[0].w_h[:, 1], before[:, 1], rtol=0.01)
        assert dead or not torch.allclose(model.layers[0].w_h[:, 0], before[:, 0], rtol=0.01)


@pytest.mark.parametrize("norm", [0.5, 20.0])
def test_clip_limits_the_joint_norm_and_reports_the_one_there_was(norm):
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    parts = torch.randn(7, generator=torch.Generator().manual_seed(0))
    parts *= norm / parts.norm()
    parameters[0].grad, parameters[1].grad = parts[:3].clone(), parts[3:].view(2, 2).clone()
    assert optim.clip(parameters, 2.0) == pytest.approx(norm, rel=1e-5)
    after = torch.cat([p.grad.flatten() for p in parameters])
    torch.testing.assert_close(after, parts * min(1.0, 2.0 / norm))
