"""How far the gradient reaches, against torch.autograd's at states that are opened up one at a time."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import VERSE
from small import NAMES, SHAPES, random_run

from charrnn import cells, checkpoint, gradients, optim
from charrnn.model import Model


def loss_with(model, tokens, place):
    """The summed loss of the last step, and a zero tensor that was added to the state at place = (layer, step, kind)."""
    config, extra = model.config, torch.zeros(tokens.shape[1], model.config.hidden, dtype=torch.float64, requires_grad=True)
    inputs = torch.cat([torch.full_like(tokens[:1], config.vocabulary), tokens[:-1]])
    state = list(model.zero_state(tokens.shape[1]))
    for t, ids in enumerate(inputs):
        x = (torch.eye(config.vocabulary + 1, dtype=torch.float64) if model.embedding is None else model.embedding)[ids]
        for number, layer in enumerate(model.layers):
            x = x @ layer.w_x + layer.b
            arguments = (torch, config.cell, x, state[number], layer.w_h, layer.b_h)
            if config.cell == "lstm":
                i, f, candidate, o = cells.gates(*arguments)
                c = f * state[number][1] + i * candidate + (extra if place == (number, t, 1) else 0)
                after = (o * torch.tanh(c), c)
            else:
                after = cells.step(*arguments, activation=config.activation, reset=config.gru_reset)
            x = after[0] + (extra if place == (number, t, 0) else 0)
            state[number] = (x, *after[1:]) if cells.STATES[config.cell] else ()
    logits = x @ model.output["w"] + model.output["b"]
    return torch.nn.functional.cross_entropy(logits, tokens[-1], reduction="sum"), extra


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_norms_are_those_of_autograd(shape):
    run = random_run(VERSE, **shape)
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, clip=1e-3))
    tokens = np.random.default_rng(0).integers(run.config.vocabulary, size=(6, 3))
    found = gradients.reaching(run, tokens)
    model = Model(run.config).double()
    model.load(run.weights)
    kinds = max(1, cells.STATES[run.config.cell])
    assert len(found["curves"]) == kinds * run.config.layers and found["reach"] == 5
    for one in found["curves"]:
        for k in range(6):
            loss, extra = loss_with(model, torch.from_numpy(tokens), (one["layer"] - 1, 5 - k, one["state"] == "memory"))
            (gradient,) = torch.autograd.grad(loss, extra, allow_unused=True) if loss.requires_grad else (None,)
            expected = 0.0 if gradient is None else float(gradient.norm(dim=1).mean())
            assert one["norms"][k] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    logits, _ = model(torch.from_numpy(np.concatenate([np.full((1, 3), run.config.vocabulary), tokens[:-1]])), model.zero_state(3))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(tokens).flatten()).backward()
    assert found["gradient_norm"] == pytest.approx(float(optim.clip(model.parameters(), 1e-3)), rel=1e-5)
    assert found["scale"] == pytest.approx(1e-3 / found["gradient_norm"], rel=1e-5) and found["scale"] < 1
    np.testing.assert_allclose(found["curves"][0]["clipped"], np.array(found["curves"][0]["norms"]) * found["scale"])


def test_it_vanishes_and_explodes_with_the_recurrent_weights():
    """A relu that is never off is linear: the norm goes as the recurrent weight's powers."""
    for factor in (0.5, 2.0):
        run = random_run(VERSE, cell="rnn", layers=1, hidden=4, embedding=0, activation="relu")
        run.weights["layers.0.w_h"][:] = factor * np.eye(4)
        run.weights["layers.0.w_x"][:] = np.abs(run.weights["layers.0.w_x"])
        run.weights["layers.0.b"][:] = 1
        (curve,) = gradients.reaching(run, np.zeros((9, 2), np.int64))["curves"]
        np.testing.assert_allclose(curve["shares"], factor ** np.arange(9.0), rtol=1e-6)


def test_any_text_will_do(tmp_path):
    run = random_run(VERSE, **SHAPES[1])
    assert gradients.of(run, "T")["reach"] == 0
    assert gradients.of(run, VERSE * 4)["reach"] == gradients.REACH
    assert gradients.windows(np.arange(1000)).shape == (257, 3)
    assert (gradients.written(run, 5, 2) < run.config.vocabulary - 1).all()
    checkpoint.save_model(dataclasses.replace(run, path=tmp_path))
    inspect = [sys.executable, "-m", "charrnn", "inspect", str(tmp_path), "--gradients", "--text", VERSE]
    shown = subprocess.run(inspect, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert "layer 2, hidden state" in shown.stdout and "powers of ten" in shown.stdout and "--clip 1" in shown.stdout
    found = json.loads(subprocess.run([*inspect, "--json"], capture_output=True, text=True, timeout=60).stdout)
    assert found["reach"] == len(VERSE) - 1 and {"norms", "shares", "clipped"} <= set(found["curves"][0])
