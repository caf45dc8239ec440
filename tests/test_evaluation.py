"""Scoring: rows read side by side against a single pass, and what an unknown character costs."""

import math

import numpy as np
import pytest
import torch

from charrnn import evaluation, kernels
from charrnn.config import ModelConfig
from charrnn.evaluation import Held, score
from charrnn.kernels import _work
from charrnn.model import Model

V = 7


def one_by_one(model, tokens):
    """The definition: each token in turn, from the start symbol and the zero state on."""
    state, nats = model.zero_state(1), 0.0
    with torch.no_grad():
        for previous, token in zip([V, *tokens[:-1]], tokens):
            logits, state = model(torch.tensor([[previous]]), state)
            nats -= float(torch.log_softmax(logits[0, 0], 0)[token])
    return nats


@pytest.fixture
def model():
    return Model(ModelConfig(cell="gru", layers=2, hidden=6, embedding=0, vocabulary=V), torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("count", [1, 2, 300, 517])
def test_a_single_pass_is_the_sum_over_its_steps(model, count):
    tokens = np.random.default_rng(0).integers(V, size=count)
    assert score(model, Held(tokens), rows=1) == pytest.approx(one_by_one(model, tokens.tolist()), abs=1e-9)


def test_rows_that_are_warmed_up_agree_with_a_single_pass(model):
    """With weights so small that the state forgets within the warm-up, to many digits; every token is scored once."""
    for weight in model.parameters():
        weight.data *= 0.5
    tokens = np.random.default_rng(1).integers(V, size=5 * evaluation.WARM_UP * 8 + 3)
    assert score(model, Held(tokens)) == pytest.approx(score(model, Held(tokens), rows=1), rel=1e-6)
    assert score(model, Held(tokens), rows=4) != score(model, Held(tokens), rows=1)  # they do differ, in digits further back


@pytest.mark.parametrize("plain", [False, True])
def test_a_temperature_divides_the_logits(model, plain, monkeypatch):
    """As scoring with an output layer divided by it does, and dividing no more than the logits."""
    monkeypatch.setattr("charrnn.kernels._work", lambda: kernels.rowwise if plain else _work())
    tokens, tried = np.random.default_rng(0).integers(V, size=300), (0.8, 1.0, 1.7)
    found = evaluation.scores(model, Held(tokens), tried, rows=1)
    assert found[1] == score(model, Held(tokens), rows=1)
    for nats, temperature in zip(found, tried):
        sharper = Model(model.config).double()
        sharper.load(model.weights())
        for weight in sharper.output.values():
            weight.data /= temperature
        assert nats == pytest.approx(one_by_one(sharper, tokens.tolist()), abs=1e-9)
    assert len(set(found)) == 3


def test_a_model_that_knows_nothing_pays_the_uniform_price(model):
    for weight in model.parameters():
        weight.data.zero_()
    tokens = np.zeros(1000, np.int64)
    assert score(model, Held(tokens)) == pytest.approx(1000 * math.log(V))
