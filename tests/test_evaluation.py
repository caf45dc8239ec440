"""Scoring: rows read side by side against a single pass, a text read in pieces against the whole, and what an unknown character costs."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn import checkpoint, dynamic, encoding, evaluation, kernels, store
from charrnn.config import ModelConfig
from charrnn.errors import StorageError
from charrnn.evaluation import Held, score
from charrnn.kernels import _work
from charrnn.model import Model
from charrnn.text import Text, open_text
from charrnn.tokenizer import LEVELS
from tests.small import random_run
from tests.test_encoding import odd

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


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", [{"cell": "gru"}, {"cell": "lstm", "bidirectional": True}], ids=["gru", "both"])
def test_a_text_read_in_pieces_has_the_figures_of_the_whole(level, shape, tmp_path, monkeypatch):
    """To the bit, whatever the pieces and the number of processes; unknown characters and all."""
    whole = odd(40_000) + "\u0107 unknown \u0106"
    run = random_run(odd(20_000, seed=3), level, layers=1, hidden=4, embedding=3, **shape)
    (tmp_path / "odd.txt").write_bytes(whole.encode())
    text, ids = open_text([tmp_path / "odd.txt"]), run.tokenizer.encode(whole)
    tokens, paid = Held(run.tokenizer.model_ids(ids)), int((ids > run.tokenizer.size).sum()) * run.tokenizer.unknown_nats
    model, both = Model(run.config), run.config.bidirectional
    model.load(run.weights)
    static = score(model, tokens) + paid
    learning = None if both else (dynamic.score(model, tokens) + paid) / text.characters
    beside = [] if both else evaluation.references(run.unigram, np.bincount(tokens.tokens, minlength=run.tokenizer.size), paid, text)
    for count, size in ((1, 1 << 20), (1, 997), (2, 4999)):
        monkeypatch.setattr(encoding, "processes", lambda *_, count=count: count)
        monkeypatch.setattr(Text.pieces, "__defaults__", (size, 0, None))
        found = evaluation.evaluate(run, text) if both else dynamic.figures(run, text)
        assert found["pseudo_nats" if both else "nats"] == static and found.get("dynamic_nats_per_character") == learning
        assert (found["tokens"], found["bytes"], found["unknown_characters"] * run.tokenizer.unknown_nats, found["references"]) == (
            tokens.count, len(whole.encode()), paid, beside)


@pytest.mark.parametrize("learns", [False, True], ids=["static", "dynamic"])
def test_memory_does_not_grow_with_the_text(learns, tmp_path, monkeypatch):
    """What Python and NumPy take; torch's share is a chunk's, whatever the text."""
    run = random_run("some words\n", "byte", cell="mlp", layers=1, hidden=2, embedding=1)
    monkeypatch.setattr(evaluation, "references", lambda *_: [])  # their compressors have tables of fixed size, which are large
    monkeypatch.setattr(Text.pieces, "__defaults__", (1 << 12, 0, None))
    monkeypatch.setattr("charrnn.sources.BLOCK", 1 << 12)
    if learns:
        monkeypatch.setattr(dynamic, "evaluate", lambda *_, **__: {})
    peaks, times = [], (5, 50) if learns else (20, 320)
    for count in (1, *times):
        (tmp_path / "long.txt").write_bytes(b"some words of it\n" * 200 * count)
        text = open_text([tmp_path / "long.txt"])
        tracemalloc.start()
        (dynamic.figures if learns else evaluation.evaluate)(run, text)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 20_000


def test_what_it_writes_meanwhile_has_no_name(tmp_path, monkeypatch):
    """In the cache's folder, else among the temporary files; a full disk is one line."""
    run = random_run("hello", cell="gru", layers=1, hidden=2, embedding=1)
    (tmp_path / "hello.txt").write_text("hello hello")
    text, cache, places = open_text([tmp_path / "hello.txt"]), tmp_path / "own" / "cache", []
    monkeypatch.setenv("CHARRNN_CACHE", str(cache))
    finish = store.Writer.finish
    monkeypatch.setattr(store.Writer, "finish",
                        lambda writer, about: places.append(os.readlink(f"/proc/self/fd/{writer.fd}")) or finish(writer, about))
    figures = evaluation.evaluate(run, text)
    assert Path(places[0]).parent == cache and not list(cache.iterdir())
    cache.rmdir()
    cache.write_text("in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert evaluation.evaluate(run, text) | {"seconds": 0} == figures | {"seconds": 0}
    assert Path(places[1]).parent == tmp_path and sorted(path.name for path in tmp_path.iterdir()) == ["hello.txt", "own"]
    monkeypatch.setattr(store.Writer, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="No space left on device: free some space"):
        evaluation.evaluate(run, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_while_it_scores_leave_nothing(number, tmp_path):
    run = random_run(odd(20_000), "word", cell="gru", layers=1, hidden=2, embedding=1)
    (tmp_path / "run").mkdir()
    checkpoint.save_model(dataclasses.replace(run, path=tmp_path / "run"))
    (tmp_path / "long.txt").write_bytes(odd(60_000).encode() * 40)
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored\n"
            "import charrnn.encoding as e; e.processes = lambda *_: 2; from charrnn.__main__ import main; main()")
    process = subprocess.Popen([sys.executable, "-c", code, "evaluate", "run", "long.txt", "--dynamic"], cwd=tmp_path,
                               env={**os.environ, "CHARRNN_CACHE": str(tmp_path / "cache")}, stderr=subprocess.PIPE, text=True)
    children, end = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    while len(asked := children.read_text().split()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert len(asked) == 2 and process.returncode == {signal.SIGINT: 130}.get(number, -number), err
    while any(os.path.exists(f"/proc/{child}") for child in asked) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(os.path.exists(f"/proc/{child}") for child in asked) and not list((tmp_path / "cache").iterdir())
