"""The model against its NumPy twin, whole sequences against single steps, and its initial weights."""

import math

import numpy as np
import pytest
import torch

from charrnn import cells
from charrnn.config import ModelConfig
from charrnn.kernels import cudnn
from charrnn.model import Layer, Model, kept
from charrnn.runtime import Runtime
from tests.small import exact_model

SHAPES = [
    ModelConfig(cell="lstm", layers=2, hidden=7, embedding=3, vocabulary=11),
    ModelConfig(cell="lstm", layers=1, hidden=5, embedding=0, vocabulary=4),
    ModelConfig(cell="gru", layers=2, hidden=6, embedding=4, vocabulary=9),
    ModelConfig(cell="gru", layers=3, hidden=5, embedding=0, vocabulary=9, gru_reset="after"),
    ModelConfig(cell="rnn", layers=2, hidden=6, embedding=2, vocabulary=5, activation="relu"),
    ModelConfig(cell="rnn", layers=1, hidden=6, embedding=2, vocabulary=5, activation="sigmoid"),
    ModelConfig(cell="mlp", layers=2, hidden=6, embedding=3, vocabulary=5),
]
T, B = 9, 4


@pytest.fixture(params=SHAPES, ids=lambda c: f"{c.cell}-{c.layers}-{c.embedding}-{c.activation}-{c.gru_reset}")
def model(request):
    return exact_model(request.param)


def tokens(config):
    return torch.from_numpy(np.random.default_rng(0).integers(config.vocabulary + 1, size=(T, B)))


def test_numpy_steps_equal_torch_sequences(model):
    ids = tokens(model.config)
    logits, state = model(ids, model.zero_state(B))
    runtime = Runtime(model.config, {name: value.detach().numpy() for name, value in model.named_parameters()})
    here = runtime.zero_state(B)
    for t in range(T):
        step, here = runtime.step(ids[t].numpy(), here)
        np.testing.assert_allclose(step, logits[t].detach().numpy(), atol=1e-12)
    for mine, theirs in zip(here, state, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-12)


def test_whole_equals_pieces(model):
    ids = tokens(model.config)
    whole, end = model(ids, model.zero_state(B))
    first, state = model(ids[:4], model.zero_state(B))
    second, state = model(ids[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(state, end, atol=1e-12, rtol=0)


def test_names_and_shapes_are_those_of_the_configuration(model):
    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == model.config.shapes()
    assert sum(value.numel() for value in model.parameters()) == model.config.parameters()


def test_gradients_are_those_of_the_equations(model):
    """Through the whole model, against a loop over cells.step with torch's own gradients."""
    config, ids = model.config, tokens(model.config)
    logits, _ = model(ids, model.zero_state(B))
    named = dict(model.named_parameters())
    state, steps = model.zero_state(B), []
    for t in range(T):
        x, new = (named["embedding"] if config.embedding else torch.eye(config.vocabulary + 1, dtype=torch.float64))[ids[t]], []
        for layer in range(config.layers):
            x = x @ named[f"layers.{layer}.w_x"] + named[f"layers.{layer}.b"]
            after = cells.step(torch, config.cell, x, state[layer], named.get(f"layers.{layer}.w_h"), named.get(f"layers.{layer}.b_h"),
                               activation=config.activation, reset=config.gru_reset)
            x = after[0]
            new.append(after if cells.STATES[config.cell] else ())
        state = tuple(new)
        steps.append(x @ named["output.w"] + named["output.b"])
    plain = torch.stack(steps)
    torch.testing.assert_close(logits, plain, atol=1e-12, rtol=0)
    weight = torch.linspace(-1, 1, plain.numel(), dtype=torch.float64).view_as(plain)
    mine = torch.autograd.grad((logits * weight).sum(), list(model.parameters()))
    theirs = torch.autograd.grad((plain * weight).sum(), list(model.parameters()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_recurrent_weights_begin_orthogonal_gate_by_gate_and_the_forget_gate_open():
    model = Model(ModelConfig(cell="lstm", hidden=8, embedding=0, vocabulary=4))
    (layer,) = model.layers
    for gate in layer.w_h.detach().split(8, dim=1):
        torch.testing.assert_close(gate.T @ gate, torch.eye(8), atol=1e-5, rtol=0)
    assert layer.b.detach().split(8)[1].tolist() == [1.0] * 8


def test_dropout_keeps_one_mask_for_all_steps_of_a_row():
    config = ModelConfig(cell="rnn", hidden=200, embedding=0, vocabulary=4)
    model = Model(config)
    masks = model.masks(B, dropout=0.4, weight_drop=0.0, generator=torch.Generator().manual_seed(0))
    hidden, _ = model.hidden(tokens(config), model.zero_state(B), masks=masks)
    dropped = hidden == 0
    assert (dropped == dropped[0]).all()
    assert 0.3 < dropped[0].float().mean() < 0.5
    assert not (dropped[0, 0] == dropped[0, 1]).all()
    whole, _ = model.hidden(tokens(config), model.zero_state(B))
    torch.testing.assert_close(hidden[~dropped], whole[~dropped] * 256 / 154)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.95])
def test_what_is_kept_is_a_fair_share_of_each_row_and_column_and_as_large_as_the_whole(share):
    mask = kept(torch.empty(0, dtype=torch.float64), (512, 515), share, torch.Generator().manual_seed(3))
    drop = round(256 * share) / 256
    assert set(mask.unique().tolist()) == ({0.0, 1 / (1 - drop)} if drop else {1.0})
    alone = math.sqrt(drop / (1 - drop))  # the standard deviation of one element, whose mean is 1
    assert abs(mask.mean() - 1) <= 4 * alone / math.sqrt(mask.numel())
    for means in mask.mean(0), mask.mean(1):
        assert (means - 1).abs().max() <= 5 * alone / math.sqrt(512)
    neighbours = ((mask[:, 1:] - 1) * (mask[:, :-1] - 1)).mean()  # bytes of one number are drawn alone too
    assert abs(neighbours) <= 4 * alone**2 / math.sqrt(mask.numel())


@pytest.mark.parametrize("config", [config for config in SHAPES if config.cell != "mlp"],
                         ids=lambda c: f"{c.cell}-{c.gru_reset}-{c.embedding}")
def test_weight_drop_computes_with_the_weights_that_are_left(config):
    """As if the dropped recurrent weights were zero and the rest larger; and those alone get a gradient."""
    model, ids, share = Model(config, torch.Generator().manual_seed(5)).double(), tokens(config), 0.3
    masks = model.masks(B, dropout=0.0, weight_drop=share, generator=torch.Generator().manual_seed(0))
    dropped, _ = model.hidden(ids, model.zero_state(B), masks=masks)
    dropped.square().sum().backward()
    generator = torch.Generator().manual_seed(0)
    for layer in model.layers:
        mask = kept(layer.w_h, layer.w_h.shape, share, generator)
        assert 0.1 < (mask == 0).double().mean() < 0.5 and not layer.w_h.grad[mask == 0].any() and layer.w_h.grad[mask != 0].any()
        layer.w_h.data *= mask
    torch.testing.assert_close(model.hidden(ids, model.zero_state(B))[0], dropped)


ON_GPU = [config for config in SHAPES if cudnn.serves(config.cell, config.activation, config.gru_reset)]


@pytest.mark.parametrize("config", ON_GPU, ids=lambda c: f"{c.cell}-{c.embedding}")
def test_the_path_of_the_gpu_computes_the_same(config, monkeypatch):
    """torch's own layers, which are cuDNN's on a GPU, run here on the CPU: outputs, state and gradients."""
    model, ids = Model(config, torch.Generator().manual_seed(5)).double(), tokens(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))

    def run():
        hidden, state = model.hidden(ids, model.zero_state(B))
        loss = (hidden * torch.linspace(-1, 1, hidden.numel(), dtype=torch.float64).view_as(hidden)).sum()
        wanted = [p for name, p in model.named_parameters() if not name.startswith("output")]
        return hidden, state, torch.autograd.grad(loss, wanted)

    ours = run()
    monkeypatch.setattr(Layer, "forward", Layer.by_cudnn)
    torch.testing.assert_close(run(), ours, atol=1e-12, rtol=0)
