"""The same laws on a GPU: it computes what the CPU does, and a run there is as exact."""

import dataclasses
import gc
import socket

import numpy as np
import pytest
import torch
from small import ALL, ALL_NAMES, random_run
from test_training import corpus_of, files, settings, state

from charrnn import distributed, evaluation, machine, recipe
from charrnn.config import ModelConfig
from charrnn.evaluation import Held
from charrnn.kernels import cudnn, nats_at, summed_nats
from charrnn.model import Model
from charrnn.trainer import Trainer
from charrnn.training import train
from charrnn.update import Replaying

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
T, B, V = 9, 4, 11


@pytest.fixture
def gpu():
    machine.prepare()
    return machine.device("cuda")


@pytest.mark.parametrize("shape", ALL, ids=ALL_NAMES)
def test_outputs_and_gradients_are_those_of_the_cpu(shape, gpu):
    config = ModelConfig(vocabulary=V, **shape)
    ids = torch.randint(V, (T, B), generator=torch.Generator().manual_seed(1))

    def run(device, dtype):
        model = Model(config, torch.Generator().manual_seed(3)).to(device, dtype)
        logits, after = model(ids.to(device), model.zero_state(B), ids.flip(0).to(device) if config.bidirectional else None)
        loss = summed_nats(logits.flatten(0, 1), torch.eye(V, device=device, dtype=dtype), torch.zeros(V, device=device, dtype=dtype),
                           ids.to(device).flatten())
        loss.backward()
        return [logits.detach(), *sum(after, ()), *(p.grad for p in model.parameters())]

    for ours, theirs in zip(run(gpu, torch.float32), run("cpu", torch.float64), strict=True):
        torch.testing.assert_close(ours.detach().cpu().double(), theirs.detach(), atol=2e-5, rtol=2e-5)


def test_scores_are_those_of_the_cpu(gpu):
    for shape in ALL:
        run = random_run("what a text pays for itself " * 400, **shape)
        tokens = Held(run.tokenizer.model_ids(run.tokenizer.encode("what a text pays for itself " * 400)))
        there, here = Model(run.config).to(gpu), Model(run.config)
        there.load(run.weights)
        here.load(run.weights)
        assert evaluation.score(there, tokens) == pytest.approx(evaluation.score(here, tokens), rel=1e-5)
    hidden, w, b = torch.randn(50, 7), torch.randn(7, V), torch.randn(V)
    targets = torch.randint(V, (50,))
    found = nats_at(*(part.to(gpu) for part in (hidden, w, b, targets)), (0.8, 1.0, 1.3))
    assert found == pytest.approx(nats_at(hidden, w, b, targets, (0.8, 1.0, 1.3)), rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2, "hidden": 64}, {"cell": "lstm", "hidden": 128, "batch": 32, "window": 32},
                                  {"cell": "gru", "gru_reset": "after"}, {"cell": "gru"}, {"cell": "rnn", "embedding": 0},
                                  {"cell": "lstm", "bidirectional": True}, {"cell": "mlp"}],
                         ids=lambda form: "-".join(map(str, form.values())))
def test_training_learns_the_same_and_twice_the_same_bytes(form, precision, small_text, gpu):
    """Without dropout, whose random numbers are the device's own: the curve of the CPU; to the byte its own once more."""
    config = settings(**{**form, "dropout": 0.0})
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    if precision == "bfloat16" and not cudnn.serves(shape.cell, shape.activation, shape.gru_reset):
        pytest.skip("a cell that cuDNN does not have stays in float32")
    plan = dataclasses.replace(recipe.plan(config, shape, corpus.training.tokens), precision=precision)
    once, again = (Trainer(corpus, config, shape, plan, gpu) for _ in range(2))
    there = Trainer(corpus, config, shape, dataclasses.replace(plan, precision="float32"), torch.device("cpu"))
    found, expected = [once.step()[0] for _ in range(30)], [there.step()[0] for _ in range(30)]
    assert once.precision == precision and found[-1] < 0.98 * found[0]
    np.testing.assert_allclose(found, expected, rtol=0.03 if precision == "bfloat16" else 1e-3)
    assert [again.step()[0] for _ in range(30)] == found
    for (name, value), other in zip(once.tensors().items(), again.tensors().values()):
        assert value.tobytes() == other.tobytes(), name
        assert value.dtype == (np.uint8 if name.startswith("generator") else np.float32)


@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2}, {"cell": "gru", "shards": 2}, {"cell": "rnn", "bidirectional": True}],
                         ids=lambda form: form["cell"])
def test_recorded_kernels_compute_what_those_launched_one_by_one_do(form, small_text, monkeypatch, gpu):
    config = settings(**form, weight_drop=0.2)
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    plan = recipe.plan(config, shape, corpus.training.tokens)
    recorded = Trainer(corpus, config, shape, plan, gpu)
    monkeypatch.setenv("CHARRNN_KERNELS", "plain")
    launched = Trainer(corpus, config, shape, plan, gpu)
    assert isinstance(recorded.learning, Replaying) and not isinstance(launched.learning, Replaying)
    np.testing.assert_allclose([recorded.step()[0] for _ in range(30)], [launched.step()[0] for _ in range(30)], rtol=1e-5)
    for parts, others in zip(recorded.state, launched.state):
        for part, other in zip(parts, others):
            torch.testing.assert_close(part, other, atol=1e-4, rtol=1e-3)


def test_python_looks_for_no_garbage_while_kernels_are_recorded(small_text, gpu):
    """Another recording among it, as that of a trainer before, would spoil this one as it is freed."""
    config = settings(cell="gru")
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    trainer = Trainer(corpus, config, shape, recipe.plan(config, shape, corpus.training.tokens), gpu)
    recording, thresholds = [], gc.get_threshold()

    def looking(phase, about):
        recording.append(torch.cuda.is_current_stream_capturing())

    gc.callbacks.append(looking)
    gc.set_threshold(1)
    try:
        trainer.step()
    finally:
        gc.callbacks.remove(looking)
        gc.set_threshold(*thresholds)
    assert gc.isenabled() and recording and not any(recording)


@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2}, {"cell": "gru", "weight_drop": 0.2},
                                  {"cell": "lstm", "steps": 12, "generations": 2}], ids=lambda form: "-".join(map(str, form.values())))
def test_resumed_equals_uninterrupted(form, small_text, tmp_path, gpu):
    config = settings(**form, device="cuda")
    corpus = corpus_of(small_text, config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(corpus, config, whole))
    for session, limit in enumerate((7, 1, 14, 1000)):
        left = iter([False] * (limit - 1))
        list(train(corpus, config, parts, resume=session > 0, stop=lambda left=left: next(left, True)))
    assert files(parts) == files(whole)
    assert state(parts) == state(whole)


@pytest.mark.parametrize("first, second", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_with_the_other_device(first, second, small_text, tmp_path, gpu):
    config = settings(device=first)
    corpus = corpus_of(small_text, config)
    left = iter([False] * 9)
    list(train(corpus, config, tmp_path / "run", stop=lambda: next(left, True)))
    start, *_, end = train(corpus, dataclasses.replace(config, device=second), tmp_path / "run", resume=True)
    assert end.reason == "finished" and end.steps == config.steps
    assert any("the bits may differ" in note for note in start.notes)


def test_gradients_that_nccl_carried_are_the_same(small_text, monkeypatch, gpu):
    """A world of one process that sends everything all the same: all_to_all, all_gather, broadcast."""
    config = settings(batch=4, shards=2)
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    plan = recipe.plan(config, shape, corpus.training.tokens)
    alone = Trainer(corpus, config, shape, plan, gpu)
    expected = [alone.step()[0] for _ in range(10)]

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    for setting in f"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT={port}".split():
        monkeypatch.setenv(*setting.split("="))
    with distributed.Joined.joined(60.0, rank=0, size=1, local=0, beside=1) as world:
        trainer = Trainer(corpus, config, shape, plan, world.device("cuda"), world)
        assert [trainer.step()[0] for _ in range(10)] == pytest.approx(expected, rel=1e-6)
        assert not trainer.drifted()
        world.spread(trainer.model.parameters())
        tensors = trainer.tensors()
    for name, value in alone.tensors().items():
        np.testing.assert_allclose(tensors[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
