"""Dynamic evaluation is honest: no token is paid for with weights that have seen it, and nothing but the order of reading tells."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from charrnn import checkpoint, evaluation, lines
from charrnn.config import ModelConfig
from charrnn.dynamic import Reader, Rule, adapted, figures, rate, score
from charrnn.errors import UsageError
from charrnn.evaluation import Held
from charrnn.kernels import summed_nats
from charrnn.model import Model
from charrnn.text import open_text
from tests.test_cli import QUICK, charrnn

V = 7
STILL = Rule(rate=1e-30, pull=0.0)
FORMS = [("lstm", 2, 3), ("gru", 1, 0), ("rnn", 1, 3), ("mlp", 1, 0)]


def made(cell="lstm", layers=1, embedding=3):
    config = ModelConfig(cell=cell, layers=layers, hidden=6, embedding=embedding, vocabulary=V)
    return Model(config, torch.Generator().manual_seed(0)).double()


def drawn(count, seed=0):
    return np.random.default_rng(seed).integers(V, size=count)


def prices(model, tokens, rule):
    """What each token costs, the segments being those of the rule."""
    reader, paid = Reader(model, rule), []
    for start in range(0, len(tokens), rule.segment):
        segment = tokens[start : start + rule.segment]
        before = [weight.detach().clone() for weight in reader.weights]
        state, last = reader.state, reader.last
        nats = reader.read(segment)
        after = [weight.detach().clone() for weight in reader.weights]
        with torch.no_grad():
            for weight, value in zip(reader.weights, before):
                weight.copy_(value)
            inputs = torch.tensor([last, *segment[:-1]])[:, None]
            hidden, _ = model.hidden(inputs, state)
            one = [float(summed_nats(hidden[t], model.output["w"], model.output["b"], torch.tensor([token])))
                   for t, token in enumerate(segment)]
            for weight, value in zip(reader.weights, after):
                weight.copy_(value)
        assert sum(one) == pytest.approx(nats, abs=1e-9)  # the price is that of the weights before the segment
        paid += one
    return np.array(paid)


@pytest.mark.parametrize("cell, layers, embedding", FORMS)
def test_a_model_that_does_not_learn_pays_the_static_price(cell, layers, embedding):
    tokens = drawn(150)
    static = evaluation.score(made(cell, layers, embedding), Held(tokens), rows=1)
    assert score(made(cell, layers, embedding), Held(tokens), STILL) == pytest.approx(static, abs=1e-9)
    assert score(made(cell, layers, embedding), Held(tokens), Rule(rate=0.01)) != pytest.approx(static, abs=1e-3)


@pytest.mark.parametrize("place", [0, 21, 31, 32, 60])
def test_a_token_changes_no_price_before_it_nor_what_its_own_weights_know(place):
    """Its own price is that of weights which have not seen it: the same that any other token in its place would have met."""
    rule = Rule(segment=16, rate=0.05)
    tokens = drawn(70)
    base = prices(made(), tokens, rule)
    shares = [np.exp(-base[place])]
    for other in set(range(V)) - {tokens[place]}:
        changed = tokens.copy()
        changed[place] = other
        found = prices(made(), changed, rule)
        np.testing.assert_array_equal(found[:place], base[:place])
        shares.append(np.exp(-found[place]))
        assert not np.allclose(found[place + 1 :], base[place + 1 :], atol=1e-6)
    assert sum(shares) == pytest.approx(1, abs=1e-9)  # so the price is a code length, however the model learns


def test_pieces_are_the_whole_only_where_segments_end():
    """What is read in one call is one segment, one step."""
    tokens, rule = drawn(64), Rule(segment=32)
    reader = Reader(made(), rule)
    assert reader.read(tokens[:32]) + reader.read(tokens[32:]) == pytest.approx(score(made(), Held(tokens), rule), abs=1e-12)


def test_a_pull_of_one_forgets_each_segment():
    model, rule = made(), Rule(segment=16, rate=0.1, pull=1.0)
    before = model.weights()
    static = evaluation.score(made(), Held(drawn(64)), rows=1)
    assert score(model, Held(drawn(64)), rule) == pytest.approx(static, abs=1e-9)
    for name, value in model.weights().items():
        np.testing.assert_allclose(value, before[name], atol=1e-12)


def test_wider_models_take_shorter_steps():
    rates = [rate("lstm", hidden) for hidden in (64, 256, 384, 512, 1024)]
    assert rates[0] == rates[1] == 4 * rates[4] and rates[1:] == sorted(rates[1:], reverse=True)
    assert Reader(made("gru", 1, 0)).rate == rate("gru", 6)


def test_what_comes_again_becomes_cheap():
    tokens = np.tile([0, 3, 3, 5, 1], 200)
    assert score(made(), Held(tokens), Rule(rate=0.05)) < 0.6 * evaluation.score(made(), Held(tokens), rows=1)


def test_a_gradient_that_overflows_teaches_nothing():
    model = made()
    reader = Reader(model)
    before = model.weights()
    with torch.no_grad():
        model.output["b"][3] = float("inf")
    reader.read(np.array([1, 2]))
    for name, value in model.weights().items():
        if name != "output.b":
            np.testing.assert_array_equal(value, before[name])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamic")
    (folder / "verse.txt").write_text("many a rose by the river grows\n" * 60)
    (folder / "other.txt").write_text("many a river by the rose grows\n" * 40 + "é")
    done = charrnn("train", "verse.txt", "--steps", "60", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_plain_figures_stay_and_the_others_are_named(trained):
    run = checkpoint.load(trained / "checkpoints" / "verse")
    text = open_text([trained / "other.txt"])
    seen = []
    plain, both = evaluation.evaluate(run, text), figures(run, text, progress=lambda *far: seen.append(far))
    assert seen[-1] == (plain["tokens"], plain["tokens"])
    own = {name for name in both if name.startswith("dynamic_")}
    assert own == {"dynamic_nats_per_character", "dynamic_bits_per_character", "dynamic_perplexity", "dynamic_seconds"}
    assert {**both, "seconds": 0} == {**plain, "seconds": 0} | {name: both[name] for name in own}
    still = figures(run, text, rule=STILL)
    assert still["dynamic_nats_per_character"] == pytest.approx(plain["nats_per_character"], rel=1e-3)  # é is paid for here too
    assert both["dynamic_nats_per_character"] < plain["nats_per_character"]


def test_evaluate_shows_both(trained):
    told = charrnn("evaluate", "checkpoints/verse", "other.txt", "--dynamic", cwd=trained)
    assert told.returncode == 0 and "dynamic evaluation" in told.stdout and "this model, learning as it reads" in told.stdout
    plain = json.loads(charrnn("evaluate", "checkpoints/verse", "other.txt", "--json", cwd=trained).stdout)
    assert not [name for name in plain if name.startswith("dynamic")]


def test_a_prompt_is_learnt_from(trained):
    run = checkpoint.load(trained / "checkpoints" / "verse")
    prompt = (trained / "other.txt").read_text()[:-1]
    after = adapted(run, prompt)
    cost = lambda one: evaluation.score(loaded(one), Held(one.tokenizer.encode(prompt)))
    assert cost(after) < cost(run)
    assert dataclasses.replace(after, weights=run.weights) == run and after.weights.keys() == run.weights.keys()
    arguments = ("sample", "checkpoints/verse", "--prompt", "-", "--dynamic", "--length", "20", "--seed", "1")
    told = charrnn(*arguments, cwd=trained, input=prompt)
    assert told.returncode == 0 and told.stdout.startswith(prompt)
    refused = charrnn("sample", "checkpoints/verse", "--dynamic", cwd=trained)
    assert refused.returncode == 2 and "--prompt" in refused.stderr


def test_a_model_that_reads_both_ways_is_refused(trained):
    run = checkpoint.load(trained / "checkpoints" / "verse")
    config = dataclasses.replace(run.config, bidirectional=True)
    with pytest.raises(UsageError, match="both ways"):
        adapted(dataclasses.replace(run, config=config), "many")


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_reading_says_how_far_it_is(terminal):
    """Nothing of a short one; in a pipe a line every ten seconds; on a terminal one line that is gone at the end."""
    stream, now = Stream(terminal), 0.0
    told = lines.Progress("reading", stream, lambda: now)
    for done in range(20, 141, 4):  # the first ones come late, after loading; then it is four a second
        now = 50 + (done - 20) / 4
        told(done, 140)
    said = stream.getvalue()
    assert "reading: 100 of 140 tokens, 0:10 left" in said
    assert said.count("\n") == (0 if terminal else 2) and said.endswith("\r\x1b[K" if terminal else "left\n")
    stream.seek(0), stream.truncate()
    now = 0.0
    short = lines.Progress("reading", stream, lambda: now)
    short(50, 100), short(100, 100)
    assert stream.getvalue() == ""


def loaded(run):
    model = Model(run.config)
    model.load(run.weights)
    return model
