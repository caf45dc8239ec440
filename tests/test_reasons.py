"""The plan and its reasons at their corners; a dry run says what a real one does, and makes nothing."""

import dataclasses
import itertools
import json
import time

import pytest
import torch
from conftest import VERSE

from charrnn import planning, reasons, recipe
from charrnn.config import ModelConfig, TrainingConfig, option_name
from charrnn.corpus import prepare
from charrnn.model import Model
from charrnn.text import open_text
from tests.test_cli import QUICK, charrnn, refused

CORNERS = list(itertools.product([5, 10**8], [3, 50_000], ["10s", "10h"], [1e-4, 20.0]))


def made(config, tokens, vocabulary=60, per_step=0.01, **more):
    model = recipe.shape(config, tokens, vocabulary)
    plan = recipe.plan(config, model, tokens, seconds_per_step=per_step, seconds_per_evaluation=per_step, **more)
    return model, plan, {choice.name: choice for choice in reasons.choices(config, model, plan, tokens, **more)}


@pytest.mark.parametrize("tokens, vocabulary, time, per_step", CORNERS)
def test_every_corner_has_a_plan_with_reasons_that_keeps_its_time(tokens, vocabulary, time, per_step):
    config = TrainingConfig(time=time)
    model, plan, choices = made(config, tokens, vocabulary, per_step)
    ahead = reasons.outlook(model, plan, seconds_per_step=per_step, seconds_per_evaluation=per_step)
    least = 3 * per_step  # a step and its evaluation are made however long they take
    assert ahead.seconds <= max(1.01 * recipe.budget(config), least)
    assert ahead.seconds > 0.85 * recipe.budget(config) or plan.steps == recipe.most_steps(tokens, plan.batch, plan.window)
    assert ahead.memory > 4 * 4 * model.parameters()
    assert all(choice.reason and "nan" not in choice.reason for choice in choices.values())
    for name in ("layers", "hidden", "embedding", "cell"):
        assert choices[name].value == getattr(model, name)
    for name in ("batch", "window", "lr", "matrix_lr", "dropout", "weight_drop", "steps", "threads"):
        assert choices[name].value == getattr(plan, name)
    lines = " ".join(reasons.short(tuple(choices.values()), ahead))
    assert f"hidden {model.hidden}" in lines and f"batch {plan.batch} x window {plan.window}" in lines and "expected" in lines


@pytest.mark.parametrize("name, value, adapts", [
    ("hidden", 1024, {"lr", "parameters"}), ("layers", 3, {"parameters"}), ("embedding", 7, {"parameters"}), ("batch", 200, {"steps"}),
    ("window", 16, {"steps"}), ("lr", 0.5, {"matrix_lr"}), ("dropout", 0.31, set()), ("weight_drop", 0.2, set()),
    ("cell", "rnn", {"lr", "parameters"}),
    ("threads", 1, set())])
def test_what_is_given_stays_and_the_rest_adapts(name, value, adapts):
    config = TrainingConfig(time="10h", **{name: value})
    plain, found = (made(one, 10**6)[2] for one in (TrainingConfig(time="10h"), config))
    assert found[name].value == value and found[name].reason == f"given by {option_name(name)}"
    changed = {key for key in found if found[key].value != plain[key].value} - {name, "evaluate_every", "dropout"}
    assert adapts <= changed
    assert not [choice for choice in plain.values() if "given" in choice.reason]


@pytest.mark.parametrize("config, tokens, name, says", [
    (TrainingConfig(time="10h"), 10**5, "hidden", "100 K tokens feed"), (TrainingConfig(time="1m"), 10**8, "hidden", "in 1:00"),
    (TrainingConfig(), 5, "hidden", "fewest"), (TrainingConfig(), 5, "batch", "all rows"), (TrainingConfig(), 5, "window", "no longer"),
    (TrainingConfig(steps=7), 10**6, "steps", "--steps"), (TrainingConfig(epochs=2.0), 10**6, "steps", "--epochs: 2 passes"),
    (TrainingConfig(time="10h"), 10**4, "steps", "nothing new"), (TrainingConfig(time="1m"), 10**8, "steps", "1m"),
    (TrainingConfig(epochs=0.5), 10**8, "dropout", "too seldom"), (TrainingConfig(epochs=20.0), 10**4, "dropout", "weights a token")])
def test_the_reason_is_the_rule_that_decided(config, tokens, name, says):
    assert says in made(config, tokens)[2][name].reason


def test_a_text_to_be_learnt_by_heart_says_so():
    assert "by heart" in made(TrainingConfig(), 100, held_out=False)[2]["dropout"].reason


def test_memory_grows_with_all_that_is_held():
    base = {"hidden": 64, "batch": 8, "window": 16}
    small = lambda **more: reasons.memory(*made(TrainingConfig(**{**base, **more}), 10**6)[:2])
    for more in ({"hidden": 256}, {"batch": 64}, {"window": 128}, {"layers": 3}):
        assert small(**more) > small()


def test_a_dry_run_makes_nothing_and_says_what_a_real_one_does(small_text, tmp_path):
    arguments = ["train", small_text, "--steps", "6", *QUICK]
    dry = charrnn(*arguments, "--dry-run", "--json", cwd=tmp_path)
    assert dry.returncode == 0 and not (tmp_path / "checkpoints").exists()
    plan = json.loads(dry.stdout)
    assert {"layers", "hidden", "embedding", "batch", "window", "lr", "matrix_lr", "dropout", "parameters", "steps", "seconds", "memory",
            "reasons"} <= set(plan)
    real = charrnn(*arguments, "--json", cwd=tmp_path)
    start = json.loads(real.stdout.splitlines()[0])
    for name in ("layers", "hidden", "embedding", "batch", "window", "parameters", "steps", "cell", "level", "vocabulary"):
        assert start[name] == plan[name]
    assert f"hidden {plan['hidden']}: given by --hidden" in start["plan"][1] and plan["seconds"] > 0
    shown = charrnn(*arguments, "--dry-run", cwd=tmp_path)  # a run that is there is not in the way
    assert shown.returncode == 0 and "given by --hidden" in shown.stdout and "memory" in shown.stdout
    assert refused(charrnn(*arguments, "--dry-run", "--resume", cwd=tmp_path), "--dry-run", "--resume")
    told = charrnn(*arguments, "--out", "lines", cwd=tmp_path)
    assert "\nplan: batch" in told.stderr and "\nplan: hidden 8: given" in told.stderr


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "mlp"])
def test_a_few_tokens_of_many_cost_no_table_and_say_the_same(cell):
    """With fewer tokens than symbols the embedding is looked up before its product; the whole is the sum of its pieces either way."""
    model = Model(ModelConfig(cell=cell, hidden=5, embedding=3, vocabulary=20), torch.Generator().manual_seed(0)).double()
    tokens = torch.arange(42).reshape(21, 2) % 20
    whole, _ = model(tokens, model.zero_state(2))
    state, pieces = model.zero_state(2), []
    for step in tokens:
        logits, state = model(step[None], state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-12)
    whole.square().sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    torch.cat(pieces).square().sum().backward()
    for weight, gradient in zip(model.parameters(), gradients):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("speed, looks", [(0.01, 2), (0.6, 2), (1.0, 1), (2.0, 2)])
def test_the_width_follows_the_machine_and_its_speed_is_measured_again(speed, looks, tmp_path, monkeypatch):
    (tmp_path / "verse.txt").write_text(VERSE * 1500, encoding="utf-8")
    corpus, config = prepare(open_text([tmp_path / "verse.txt"]), level="char"), TrainingConfig(time="30s", threads=1)
    tokens, seen, dropped = corpus.training.tokens, [], []

    def measure(trainer, choices, limit):
        model, plan = trainer.model.config, trainer.plan
        dropped.append([plan.dropout, plan.weight_drop])
        seen.append(recipe.REFERENCE * model.parameters() * plan.batch * plan.window / speed)
        return choices[0], seen[-1], 0.01

    monkeypatch.setattr(planning, "measure", measure)
    found = planning.planned(corpus, config, torch.device("cpu"), began=time.monotonic())
    assert found.model.hidden == recipe.hidden(tokens, 30, max(speed, 0.25)) and len(seen) == looks
    assert found.outlook.seconds_per_step == seen[-1]
    assert found.outlook.seconds == pytest.approx(30, rel=0.02)
    if speed > 0.25:  # slower than what a busy machine is taken for, it has no time for passes that need dropout
        assert dropped[-1] == pytest.approx([found.plan.dropout, found.plan.weight_drop], abs=0.05) and found.plan.dropout > 0.1
    assert planning.planned(corpus, dataclasses.replace(config, hidden=64), torch.device("cpu"), began=time.monotonic()).model.hidden == 64
