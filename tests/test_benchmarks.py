"""The benchmark is honest: both sides compute the same, and nothing that tunes one of them gets in."""

import gzip
import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import bench, memory, ours, plain, sides, whole
from benchmarks.about import others
from benchmarks.results import Row
from benchmarks.same import copy, difference, pair, smallest
from benchmarks.shapes import QUICK, TRAIN, Settings, Shape
from benchmarks.texts import drawn
from charrnn.model import Model
from charrnn.runtime import Runtime

CELLS = ("lstm", "gru", "rnn")
TINY = Settings(
    train=(Shape("lstm", 9, 2, rows=3, window=5, target=1.0),), busy=(Shape("rnn", 8, 1, rows=3, window=4),),
    sample=(Shape("lstm", 10, 2),), rounds=2, steps=1, seconds=0.01, streams=3, starts=("help", "sample"), start_rounds=1,
    memory=Shape("gru", 6), memory_tokens=1_500, score=Shape("lstm", 9), score_characters=3_000, trained_steps=3, passes=2_000,
    read_bytes=4_000, levels=("char",))


@pytest.mark.parametrize("cell", CELLS)
def test_both_sides_give_the_same_losses_and_the_same_weights_after_each_update(cell):
    assert difference(smallest(cell), steps=5) < 1e-12


@pytest.mark.parametrize("cell", CELLS)
def test_they_do_so_where_the_gradient_is_clipped(cell):
    """torch's clipping divides by the norm plus 1e-6, so the two are not quite the same then."""
    assert difference(smallest(cell), steps=5, clip=0.05) < 1e-6


@pytest.mark.parametrize("cell", CELLS)
def test_all_of_torchs_weights_reach_the_other_side(cell):
    """Its second bias too, which training leaves at 0 for the sake of the comparison."""
    shape = smallest(cell)
    left = plain.Plain(cell, shape.vocabulary, shape.embedding, shape.hidden, shape.layers).double()
    right = Model(ours.config(shape)).double()
    copy(left, right)
    inputs = torch.from_numpy(ours.windows(shape, 1)[0][0])
    with torch.no_grad():
        torch.testing.assert_close(right(inputs, right.zero_state(shape.rows))[0], left(inputs)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradients_are_the_same(cell):
    shape = smallest(cell)
    left, right = pair(shape)
    inputs, targets = (torch.from_numpy(part) for part in ours.windows(shape, 1)[0])
    logits, _ = left(inputs)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    logits, _ = right(inputs, right.zero_state(shape.rows))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    shadow = Model(right.config).double()
    with torch.no_grad():  # gradients lie as weights do, once each weight is its gradient
        for parameter in left.parameters():
            parameter.copy_(parameter.grad)
    copy(left, shadow)
    for (name, a), b in zip(right.named_parameters(), shadow.parameters()):
        rows = slice(shape.vocabulary if name == "embedding" else None)
        torch.testing.assert_close(a.grad[rows], b.detach()[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_plain_loop_draws_from_the_same_distribution(cell, monkeypatch):
    """Token by token, each given those before it."""
    shape = Shape(cell, 9, 2, vocabulary=37)
    left, right = pair(shape)
    said = []
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda *given, **named: said.append(softmax(*given, **named)) or said[-1])
    drawn = list(itertools.islice(plain.write(left, token=3, generator=torch.Generator().manual_seed(1)), 12))
    runtime = Runtime(right.config, {name: value.detach().numpy() for name, value in right.named_parameters()})
    state = runtime.zero_state(1)
    for token, p in zip([3, *drawn[:-1]], said):
        logits, state = runtime.step(np.array([token]), state)
        own = np.exp(logits[0] - logits[0].max())
        np.testing.assert_allclose(own / own.sum(), p.numpy(), atol=1e-12)
    assert len(set(drawn)) > 3


def test_charrnns_side_draws_from_the_model_unchanged():
    """How often each character comes first, of many samples, is what the model says."""
    shape = Shape("gru", 8, 1, vocabulary=6)
    run, streams = ours.run(shape), 20_000
    seen = np.zeros(shape.vocabulary)
    for piece in ours.write(run, streams, length=1):
        if piece.text:
            seen[run.tokenizer.encode(piece.text)[0]] += 1
    runtime = Runtime(run.config, run.weights)
    logits, _ = runtime.step(np.array([run.tokenizer.start]), runtime.zero_state(1))
    p = np.exp(logits[0, :-1])  # the symbol for unknown characters is never written
    assert seen.sum() == streams
    np.testing.assert_allclose(seen[:-1] / streams, p / p.sum(), atol=0.02)


def test_both_sides_read_the_same_windows_which_follow_one_another():
    shape = Shape("rnn", 4, 1, rows=3, window=5, vocabulary=7)
    windows = ours.windows(shape, 3)
    for (inputs, targets), (after, _) in itertools.pairwise(windows):
        assert inputs.shape == targets.shape == (5, 3)
        np.testing.assert_array_equal(inputs[1:], targets[:-1])
        np.testing.assert_array_equal(targets[-1], after[0])
    assert max(inputs.max() for inputs, _ in windows) < 6


@pytest.mark.parametrize("shape", TRAIN, ids=lambda shape: shape.name)
def test_the_operations_are_those_of_the_weights_in_use(shape):
    """Three passes with a multiplication and an addition for each weight and token; torch's biases and embedding take none."""
    model = plain.Plain(shape.cell, shape.vocabulary, shape.embedding, shape.hidden, shape.layers).to("meta")
    weights = sum(p.numel() for name, p in model.named_parameters() if "bias" not in name and "embedding" not in name)
    assert shape.flops == 6 * weights * shape.rows * shape.window


def test_the_floor_counts_what_a_step_reads():
    """All weights but the first layer's input table, of which it is a row."""
    shape = Shape("lstm", 12, 3)
    shapes = ours.config(shape).shapes()
    read = sum(int(np.prod(size)) for name, size in shapes.items() if name not in ("embedding", "layers.0.w_x", "layers.0.b"))
    assert shape.bytes_a_token == 4 * (read + 4 * 12)


def test_no_setting_of_threads_or_allocators_reaches_a_side(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "MKL_NUM_THREADS", "LD_PRELOAD"):
        monkeypatch.setenv(name, "1")
    assert not [name for name in sides.environment() if name.startswith(sides.TUNING)]
    assert "PATH" in sides.environment()


def test_a_side_that_fails_is_named(capfd):
    with pytest.raises(RuntimeError, match="read_text"):
        sides.facts("read_text", path="/nowhere", level="char", cache="/nowhere")
    assert "nowhere" in capfd.readouterr().err


def test_a_command_is_timed_only_when_it_does_what_is_waited_for(tmp_path):
    python = [sys.executable, "-S", "-c"]
    assert whole.until([*python, "print('a'); print('b', flush=True); import time; time.sleep(60)"], b"b", tmp_path) < 30
    assert whole.until([*python, "print('a', flush=True); import time; time.sleep(60)"], b"", tmp_path) < 30
    for code, seen in (("print('a')", b"b"), ("pass", b""), ("raise SystemExit(3)", None)):
        with pytest.raises(RuntimeError, match="not as expected"):
            whole.until([*python, code], seen, tmp_path)


def test_targets_are_judged_on_the_side_they_name():
    row = Row("train", "x", 2.0, "×", ("≥", 2.1))
    assert [row.met, replace(row, target=("≤", 2.1)).met, replace(row, target=None).met] == [False, True, None]


def test_the_quick_run_is_a_part_of_the_whole_one():
    full = Settings()
    assert set(QUICK.train) < set(full.train) and set(QUICK.busy) < set(full.busy) and set(QUICK.sample) < set(full.sample)
    assert {shape.cell for shape in QUICK.train} == set(CELLS)


def test_a_machine_that_is_not_quiet_is_noticed():
    quiet = others(0.3)
    with sides.busy(), sides.busy():
        assert others(0.3) > 0.5
    assert quiet >= 0


def test_drawn_text_is_always_the_same_and_as_long_as_asked():
    assert drawn(5_000) == drawn(5_000) and len(drawn(5_000)) == 5_000
    assert 20 < len(set(drawn(5_000))) < 65


def test_a_whole_run_writes_a_table_and_valid_json(tmp_path, capsys):
    """Every part but training's start, with tiny shapes in the true processes."""
    path = tmp_path / "deep" / "bench.json"
    assert bench.main(["--quick", "--json", str(path), "--only", "train,busy,sample,start,memory,read"], TINY) == 0
    result = json.loads(path.read_text())
    parts = {row["part"] for row in result["rows"]}
    assert parts == {"train", "busy", "sample", "start", "memory", "read"} == set(result["seconds"])
    assert {"machine", "versions", "compiler", "kernels", "date", "command", "load"} <= set(result["about"])
    train = result["rows"][0]
    assert train["figure"] == pytest.approx(train["plain"]["median"] / train["ours"]["median"])
    assert len(train["data"]["turns"]) == len(train["data"]["plain_turns"]) == TINY.rounds
    assert train["data"]["plain_facts"]["GOMP_SPINCOUNT"] is None and train["data"]["facts"]["GOMP_SPINCOUNT"]
    assert str(sides.ROOT) not in json.dumps(result["rows"])
    out = capsys.readouterr().out
    for row in result["rows"]:
        assert row["name"] in out
        assert all(value > 0 for value in (row["plain"] or {}).values())
    assert "targets met" in out


def test_scores_are_compared_on_a_trained_model(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(drawn(3_000))
    rows = list(whole.score(TINY, text, tmp_path))
    assert rows[0].data["characters"] == 3_000
    assert rows[1].data["single"] > 0 and rows[1].figure < 5


@pytest.mark.parametrize("wrong", ["--only=train,nothing", "--unknown"])
def test_a_wrong_option_is_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main([wrong])
    capsys.readouterr()


def test_the_most_memory_is_that_of_a_process_and_its_children(tmp_path, capsys):
    assert memory.size_of("3K") == 3_000 and memory.size_of("4g") == 4 * 10**9
    text, packed = (memory.made(tmp_path / "text.txt", 2_000_000, packed) for packed in (False, True))
    assert gzip.decompress(packed.read_bytes()) == text.read_bytes() and 0 <= text.stat().st_size - 2_000_000 < 2_000_000
    words = text.read_text(encoding="utf-8").split()
    assert len(set(words[: len(words) // 2])) < 0.9 * len(set(words))  # it grows with the text
    memory.main(["--sizes", "3K", "--levels", "char", "--steps", "1", "--folder", str(tmp_path)])
    level, size, one, together, processes, *_ = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert (level, size, processes) == ("char", "3K", "1") and 100 < int(together) <= int(one) + 1
    with pytest.raises(SystemExit, match="no such file"):
        memory.trained(tmp_path / "nothing.txt", tmp_path, "char", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said", "text.txt", "text.txt.gz"]
