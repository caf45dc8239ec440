"""Both ways through the text: nothing leaks, gradients are those of the plain form, pieces are the whole; and what a run of it may do."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch

from charrnn import cells, checkpoint, evaluation, recipe
from charrnn.batches import Batches
from charrnn.checkpoint import load
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.corpus import prepare
from charrnn.errors import CheckpointError, UsageError
from charrnn.evaluation import Held, evaluate, score
from charrnn.events import Evaluation, Sample
from charrnn.model import Model
from charrnn.runtime import Runtime
from charrnn.sampling import generate
from charrnn.text import open_text
from charrnn.training import train
from tests.small import exact_model

SHAPES = [
    ModelConfig(cell="lstm", layers=2, hidden=7, embedding=3, vocabulary=11, bidirectional=True),
    ModelConfig(cell="gru", layers=1, hidden=6, embedding=0, vocabulary=9, bidirectional=True),
    ModelConfig(cell="gru", layers=3, hidden=5, embedding=4, vocabulary=9, gru_reset="after", bidirectional=True),
    ModelConfig(cell="rnn", layers=2, hidden=6, embedding=0, vocabulary=5, activation="relu", bidirectional=True),
    ModelConfig(cell="mlp", layers=2, hidden=6, embedding=3, vocabulary=5, bidirectional=True),
]
N, B = 9, 3


@pytest.fixture(params=SHAPES, ids=lambda c: f"{c.cell}-{c.layers}-{c.embedding}-{c.gru_reset}")
def model(request):
    return exact_model(request.param)


def text(config):
    """(N, B) tokens."""
    return torch.from_numpy(np.random.default_rng(0).integers(config.vocabulary, size=(N, B)))


def whole(model, tokens):
    """logits (N, B, V) of each token, given all the others; the start symbol stands at both ends."""
    end = torch.full((1, tokens.shape[1]), model.config.vocabulary)
    logits, _ = model(torch.cat([end, tokens[:-1]]), model.zero_state(tokens.shape[1]), torch.cat([tokens[1:], end]))
    return logits


def stacked(model, tokens):
    """The same weights as the network is often drawn: each layer joins both directions (here: adds them) before the next one reads."""
    config, named = model.config, dict(model.named_parameters())
    end = torch.full((1, tokens.shape[1]), config.vocabulary)
    table = named.get("embedding", torch.eye(config.vocabulary + 1, dtype=torch.float64))
    x = table[torch.cat([end, tokens, end])]  # position p of the text stands at p + 1
    for layer in range(config.layers):
        joined = [one_way(config, named, tower, layer, x if tower == "layers" else x.flip(0)) for tower in config.towers]
        last, x = (joined[0], joined[1].flip(0)), joined[0] + joined[1].flip(0)
    return torch.cat([last[0][:-2], last[1][2:]], 2) @ named["output.w"] + named["output.b"]


def one_way(config, named, tower, layer, x):
    """A layer of a tower over x (T, B, inputs), by a loop over cells.step."""
    zero = torch.zeros(x.shape[1], config.hidden, dtype=x.dtype)
    state, outputs = tuple(zero for _ in range(cells.STATES[config.cell])), []
    for row in x @ named[f"{tower}.{layer}.w_x"] + named[f"{tower}.{layer}.b"]:
        after = cells.step(torch, config.cell, row, state, named.get(f"{tower}.{layer}.w_h"), named.get(f"{tower}.{layer}.b_h"),
                           activation=config.activation, reset=config.gru_reset)
        state = after if cells.STATES[config.cell] else ()
        outputs.append(after[0])
    return torch.stack(outputs)


def plain(model, tokens):
    """The definition: two towers by loops, joined at the output alone."""
    config, named = model.config, dict(model.named_parameters())
    end = torch.full((1, tokens.shape[1]), config.vocabulary)
    table = named.get("embedding", torch.eye(config.vocabulary + 1, dtype=torch.float64))
    sides = []
    for tower, ids in (("layers", torch.cat([end, tokens[:-1]])), ("back", torch.cat([tokens[1:], end]).flip(0))):
        x = table[ids]
        for layer in range(config.layers):
            x = one_way(config, named, tower, layer, x)
        sides.append(x if tower == "layers" else x.flip(0))
    return torch.cat(sides, 2) @ named["output.w"] + named["output.b"]


@pytest.mark.parametrize("place", [0, 4, N - 1])
def test_a_token_never_tells_on_itself_and_always_tells_its_neighbours(model, place):
    tokens = text(model.config)
    other = tokens.clone()
    other[place] = (tokens[place] + 1) % model.config.vocabulary
    before, after = whole(model, tokens), whole(model, other)
    assert torch.equal(before[place], after[place])
    for neighbour in {place - 1, place + 1} & set(range(N)):
        assert not torch.equal(before[neighbour], after[neighbour])


@pytest.mark.parametrize("config", [c for c in SHAPES if c.layers > 1 and c.cell != "mlp"], ids=lambda c: c.cell)
def test_a_stack_that_joins_both_directions_would_leak(config):
    model = Model(config, torch.Generator().manual_seed(3)).double()
    tokens = text(config)
    other = tokens.clone()
    other[4] = (tokens[4] + 1) % config.vocabulary
    assert not torch.equal(stacked(model, tokens)[4], stacked(model, other)[4])
    assert torch.equal(plain(model, tokens)[4], plain(model, other)[4])


def test_gradients_are_those_of_the_equations(model):
    tokens = text(model.config)
    mine, theirs = whole(model, tokens), plain(model, tokens)
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)
    weight = torch.linspace(-1, 1, mine.numel(), dtype=torch.float64).view_as(mine)
    grads = [torch.autograd.grad((side * weight).sum(), list(model.parameters())) for side in (mine, theirs)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_whole_equals_pieces(model):
    """The forward state is carried from the left, the backward one from the right."""
    tokens = text(model.config)
    end = torch.full((1, B), model.config.vocabulary)
    before, after = torch.cat([end, tokens[:-1]]), torch.cat([tokens[1:], end])
    right = model.hidden(after[4:].flip(0), model.zero_state(B), backward=True)[1]
    first, state = model.both(before[:4], after[:4], model.zero_state(B), right)
    second, _ = model.both(before[4:], after[4:], state, model.zero_state(B))
    pieces = torch.cat([first, second]) @ model.output["w"] + model.output["b"]
    torch.testing.assert_close(pieces, whole(model, tokens), atol=1e-12, rtol=0)
    ahead, _ = model.both(before[:4], after, model.zero_state(B), model.zero_state(B))  # the rest is what is read first
    torch.testing.assert_close(ahead, first, atol=1e-12, rtol=0)


def test_numpy_towers_sum_to_the_models_logits(model):
    tokens = text(model.config)
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    ends = np.full((1, B), model.config.vocabulary)
    sides = []
    for backward, ids in ((False, np.concatenate([ends, tokens[:-1]])), (True, np.concatenate([tokens[1:], ends])[::-1])):
        runtime, steps = Runtime(model.config, weights, backward=backward), []
        state = runtime.zero_state(B)
        for row in ids:
            logits, state = runtime.step(row, state)
            steps.append(logits)
        sides.append(np.stack(steps[::-1] if backward else steps))
    np.testing.assert_allclose(sum(sides) - weights["output.b"], whole(model, tokens).detach().numpy(), atol=1e-12)


def test_names_shapes_and_counts(model):
    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == model.config.shapes()
    one = dataclasses.replace(model.config, bidirectional=False)
    assert set(one.shapes()) < set(model.config.shapes())
    near = recipe.of_size(dataclasses.replace(model.config, vocabulary=70), 100_000).parameters()
    assert near == pytest.approx(100_000, rel=0.02)


def slow_score(model, ids):
    tokens = torch.from_numpy(ids)[:, None]
    with torch.no_grad():
        p = torch.log_softmax(whole(model, tokens)[:, 0], 1)
    return -float(p[torch.arange(len(ids)), tokens[:, 0]].sum())


@pytest.mark.parametrize("count", [1, 2, 300, 517])
def test_a_score_is_the_sum_over_all_tokens_given_the_others(count):
    model = Model(SHAPES[0], torch.Generator().manual_seed(0)).double()
    ids = np.random.default_rng(0).integers(11, size=count)
    assert score(model, Held(ids), rows=1) == pytest.approx(slow_score(model, ids), rel=1e-9)


def test_chunks_that_are_warmed_up_agree_with_a_single_pass():
    model = Model(SHAPES[1], torch.Generator().manual_seed(0)).double()
    for weight in model.parameters():
        weight.data *= 1.5
    ids = np.random.default_rng(1).integers(9, size=5 * evaluation.WARM_UP * 8 + 3)
    exact = slow_score(model, ids)
    assert score(model, Held(ids)) == pytest.approx(exact, rel=1e-3)
    assert score(model, Held(ids), rows=1) == pytest.approx(exact, rel=1e-3)


class Counting:
    """A text whose token at place i is i."""

    count = 100

    def read(self, start, stop):
        return np.arange(start, stop)


@pytest.mark.parametrize("ahead", [0, 5, 300])
def test_a_window_brings_what_follows_its_targets(ahead):
    batches = Batches(Counting(), start=100, batch=3, window=10, seed=3, ahead=ahead)
    for step in range(2 * batches.steps_per_epoch):
        window, size = batches[step], len(batches[step].targets)
        last = (step + 1) % batches.steps_per_epoch == 0
        assert np.array_equal(window.after[: size - 1], window.targets[1:])
        assert len(window.after) == size + (0 if last else ahead)
        along = np.concatenate([window.targets[-1:], window.after[size - 1 :]])
        if last:
            assert (along[-1] == 100).all()
        else:
            assert (np.diff(along, axis=0) % 100 == 1).all()


def settings(**more):
    return TrainingConfig(**{"hidden": 10, "batch": 3, "window": 11, "steps": 30, "dropout": 0.3, "threads": 1, **more}, bidirectional=True)


@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2}, {"cell": "gru", "level": "word", "embedding": 0}], ids=str)
def test_resumed_equals_uninterrupted(form, small_text, tmp_path):
    config = settings(**form)
    corpus = prepare(open_text([small_text]), level=config.level, vocab_size=None, valid=0.1)
    whole_run, parts = tmp_path / "whole", tmp_path / "parts"
    events = list(train(corpus, config, whole_run))
    (sample,) = (event for event in events if isinstance(event, Sample))
    held_out = small_text.read_text(encoding="utf-8")[corpus.training.characters :]
    told, filled = re.sub(r"\[.*?\]", "[]", sample.text), re.findall(r"\[(.*?)\]", sample.text)
    assert filled and re.match(".*?".join(map(re.escape, told.split("[]"))), held_out, re.DOTALL)
    for session, limit in enumerate((7, 14, 1000)):
        left = iter([False] * (limit - 1))
        list(train(corpus, config, parts, resume=session > 0, stop=lambda left=left: next(left, True)))
    assert (whole_run / checkpoint.MODEL).read_bytes() == (parts / checkpoint.MODEL).read_bytes()
    told = [event.as_json() for event in events if isinstance(event, Evaluation)]
    assert all("validation_pseudo_perplexity" in one and "validation_perplexity" not in one for one in told)

    run = load(whole_run)
    figures = evaluate(run, open_text([small_text]))
    assert math.isclose(figures["pseudo_perplexity"], math.exp(figures["pseudo_nats_per_token"]))
    assert not {"perplexity", "nats", "bits_per_character"} & set(figures) and not figures["references"]
    with pytest.raises(UsageError, match="charrnn fill") as caught:
        list(generate(run, SamplingConfig()))
    assert "\n" not in str(caught.value)

    other = next(train(corpus, config, tmp_path / "next", init_from=run))
    assert any("kept" in note for note in other.notes)
    tensors, about = checkpoint.read(whole_run / checkpoint.MODEL)
    del about["sha256"], about["format"]
    checkpoint.write(whole_run / checkpoint.MODEL, {name: value for name, value in tensors.items() if "back.0.w_h" not in name}, about)
    with pytest.raises(CheckpointError, match=r"back\.0\.w_h"):
        load(whole_run)


def test_a_run_that_was_written_before_there_were_two_directions_has_one():
    for config in (ModelConfig(), TrainingConfig()):
        written = json.loads(json.dumps(config.as_json()))
        del written["bidirectional"]
        assert type(config).from_json(written) == config
    with pytest.raises(CheckpointError):
        ModelConfig.from_json({**ModelConfig().as_json(), "bidirectional": 1})


def test_its_width_is_that_of_equal_parameters():
    one, both = (recipe.shape(TrainingConfig(bidirectional=side), 10**6, 70) for side in (False, True))
    assert both.parameters() == pytest.approx(one.parameters(), rel=0.01) and both.hidden < one.hidden
    assert recipe.shape(TrainingConfig(bidirectional=True, hidden=33), 10**6, 70).hidden == 33
    assert TrainingConfig(bidirectional=True, hidden=5).options() == ("--hidden", "5", "--bidirectional")
