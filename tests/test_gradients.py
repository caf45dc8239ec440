"""How far the gradient reaches, against torch.autograd's at states that are opened up one at a time."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import VERSE
from small import BOTH, NAMES, SHAPES, random_run

from charrnn import cells, checkpoint, gradients, optim
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.heat import gradient_view
from charrnn.model import Model
from charrnn.planning import planned
from charrnn.text import open_text
from charrnn.trainer import Trainer


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


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("length", [1, 6, 7])
def test_both_ways_the_loss_is_that_of_the_middle_token_and_each_tower_has_its_curves(shape, length):
    """Against zeros that are added to one state at a time, in two loops that meet at the output."""
    run = random_run(VERSE, **shape)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(run.config.vocabulary, size=(length, 3)))
    found, model = gradients.reaching(run, tokens.numpy()), Model(run.config).double()
    model.load(run.weights)
    config, middle, size = run.config, (length - 1) // 2, run.config.hidden
    tokens = tokens[: 2 * middle + 1]
    end = torch.full_like(tokens[:1], config.vocabulary)
    sides = {"forward": (model.layers, torch.cat([end, tokens[:middle]])),
             "backward": (model.back, torch.cat([end, tokens[middle + 1 :].flip(0)]))}
    assert found["reach"] == middle
    assert len(found["curves"]) == 2 * max(1, cells.STATES[config.cell]) * config.layers
    for one in found["curves"]:
        for k in range(middle + 1):
            extra, halves = torch.zeros(3, size, dtype=torch.float64, requires_grad=True), []
            for side, (layers, inputs) in sides.items():
                state = list(model.zero_state(3))
                for t, ids in enumerate(inputs):
                    x = (torch.eye(config.vocabulary + 1, dtype=torch.float64) if model.embedding is None else model.embedding)[ids]
                    for number, layer in enumerate(layers):
                        here = (side, number + 1, middle - t) == (one["tower"], one["layer"], k)
                        arguments = (torch, config.cell, x @ layer.w_x + layer.b, state[number], layer.w_h, layer.b_h)
                        if config.cell == "lstm":
                            i, f, candidate, o = cells.gates(*arguments)
                            c = f * state[number][1] + i * candidate + (extra if here and one["state"] == "memory" else 0)
                            after = (o * torch.tanh(c), c)
                        else:
                            after = cells.step(*arguments, activation=config.activation, reset=config.gru_reset)
                        x = after[0] + (extra if here and one["state"] == "hidden" else 0)
                        state[number] = (x, *after[1:]) if cells.STATES[config.cell] else ()
                halves.append(x)
            loss = torch.nn.functional.cross_entropy(torch.cat(halves, 1) @ model.output["w"] + model.output["b"], tokens[middle],
                                                     reduction="sum")
            (gradient,) = torch.autograd.grad(loss, extra, allow_unused=True)
            assert one["norms"][k] == pytest.approx(0.0 if gradient is None else float(gradient.norm(dim=1).mean()), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("shape", [SHAPES[0], BOTH[0]], ids=["one way", "both ways"])
def test_the_whole_gradient_is_the_one_that_training_takes(shape, small_text):
    """Of a step without dropout, over the same tokens."""
    corpus = prepare(open_text([small_text]), level="char", vocab_size=None, valid=0.1)
    shape = {name: value for name, value in shape.items() if name != "hidden"}
    settings = TrainingConfig(**shape, hidden=6, steps=1, dropout=0, clip=1e-3, precision="float32", batch=2, window=9)
    made = planned(corpus, settings, torch.device("cpu"), began=0.0)
    trainer = Trainer(corpus, settings, made.model, made.plan, torch.device("cpu"))
    window = trainer.batches[0]
    weights = {name: value.copy() for name, value in trainer.model.weights().items()}
    trainer.update(window)
    model = Model(made.model).double()
    model.load(weights)
    before, targets = torch.from_numpy(window.inputs), torch.from_numpy(window.targets)
    after = torch.from_numpy(window.after) if made.model.bidirectional else targets
    assert gradients.of_update(model, before, targets, after) == pytest.approx(trainer.gradient_norm, rel=1e-4)


def test_it_vanishes_and_explodes_with_the_recurrent_weights():
    """A relu that is never off is linear: the norm goes as the recurrent weight's powers."""
    for factor in (0.5, 2.0):
        run = random_run(VERSE, cell="rnn", layers=1, hidden=4, embedding=0, activation="relu")
        run.weights["layers.0.w_h"][:] = factor * np.eye(4)
        run.weights["layers.0.w_x"][:] = np.abs(run.weights["layers.0.w_x"])
        run.weights["layers.0.b"][:] = 1
        (curve,) = gradients.reaching(run, np.zeros((9, 2), np.int64))["curves"]
        np.testing.assert_allclose(curve["shares"], factor ** np.arange(9.0), rtol=1e-6)


def test_the_table_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("charrnn.tables.PIPED", 80)
    for shape in (SHAPES[0], BOTH[0]):
        found = gradients.of(random_run(VERSE, **shape), VERSE * 4)
        for curve in found["curves"]:
            curve["shares"] = [1e-12 * share for share in curve["shares"]]  # as wide as a figure gets
        gradient_view(found)
        lines = capsys.readouterr().out.splitlines()
        rows = [line for line in lines if "e-" in line]
        assert len(rows) == len(found["curves"]) and all(len(row.split()) == 13 for row in rows) and "…" not in "".join(lines)
        assert max(map(len, lines)) <= 80


def test_any_text_will_do(tmp_path):
    run = random_run(VERSE, **SHAPES[1])
    assert gradients.of(run, "T")["reach"] == 0
    assert gradients.of(run, VERSE * 4)["reach"] == gradients.REACH
    assert gradients.windows(np.arange(1000)).shape == (257, 3)
    assert (gradients.written(run, 5, 2) < run.config.vocabulary - 1).all()
    checkpoint.save_model(dataclasses.replace(run, path=tmp_path))
    inspect = [sys.executable, "-m", "charrnn", "inspect", str(tmp_path), "--gradients", "--text", VERSE]
    shown = subprocess.run(inspect, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert "layer 2 hidden state" in shown.stdout and "powers of ten" in shown.stdout and "--clip 1: nothing is clipped" in shown.stdout
    found = json.loads(subprocess.run([*inspect, "--json"], capture_output=True, text=True, timeout=60).stdout)
    assert found["reach"] == len(VERSE) - 1 and {"norms", "shares", "clipped"} <= set(found["curves"][0])
    both = random_run(VERSE, **BOTH[0])
    checkpoint.save_model(dataclasses.replace(both, path=tmp_path, training=dataclasses.replace(both.training, clip=1e-3)))
    shown = subprocess.run(inspect[:-2], capture_output=True, text=True, encoding="utf-8", timeout=120)
    for said in ("forward 2 memory state", "backward 1 hidden state", "  clipped  ", "◇ clipped", "takes it all times"):
        assert said in shown.stdout, shown.stderr
    assert gradients.of(both, VERSE * 16)["reach"] == gradients.REACH
