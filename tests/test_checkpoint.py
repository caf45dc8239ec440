"""Runs on disk: the same content gives the same bytes, and whatever is not whole is refused in one line."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn import checkpoint
from charrnn.checkpoint import Run
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.errors import CheckpointError
from charrnn.tokenizer import build


def make_run(folder):
    tokenizer = build("char", lambda: ["hello, Việt"])
    config = ModelConfig(cell="gru", layers=2, hidden=3, embedding=2, vocabulary=tokenizer.size, gru_reset="after")
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in config.shapes().items()}
    text = {"name": "x", "digest": "0" * 64, "characters": 12, "held_out": False, "training_tokens": 12, "training_characters": 12,
            "validation_tokens": 12, "validation_characters": 12}
    return Run(folder, config, TrainingConfig(cell="gru"), tokenizer, weights, np.arange(tokenizer.size),
               (np.array([1, 2**63], np.uint64), 2**64), text, {"step": 3, "curve": [[1, 2.0, 3.0]], "plan": {}})


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path)
    checkpoint.save_model(made)
    return made


def test_what_was_saved_is_what_is_loaded(run):
    found = checkpoint.load(run.path)
    for name, value in run.weights.items():
        np.testing.assert_array_equal(found.weights[name], value)
    np.testing.assert_array_equal(found.unigram, run.unigram)
    np.testing.assert_array_equal(found.fingerprint[0], run.fingerprint[0])
    assert found.fingerprint[1] == 2**64 and found.tokenizer.digest == run.tokenizer.digest
    assert (found.config, found.training, found.text, found.metrics) == (run.config, run.training, run.text, run.metrics)


def test_the_same_content_gives_the_same_bytes(run):
    path = run.path / checkpoint.MODEL
    first = path.read_bytes()
    checkpoint.save_model(checkpoint.load(run.path))
    assert path.read_bytes() == first


def test_other_tools_can_read_the_weights(run):
    from safetensors.numpy import load_file

    tensors = load_file(run.path / checkpoint.MODEL)
    np.testing.assert_array_equal(tensors["weights.output.w"], run.weights["output.w"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_no_damaged_byte_goes_unnoticed(run, place, change, cut):
    data = bytearray((run.path / checkpoint.MODEL).read_bytes())
    at = int(place * len(data))
    if cut:
        del data[at:]
    else:
        data[at] ^= change
    damaged = run.path / "damaged.safetensors"
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(damaged)
    assert str(damaged) in str(caught.value) and "\n" not in str(caught.value)


def rewritten(run, change):
    """A file with a valid digest whose content was changed: what a stranger could make."""
    tensors, about = checkpoint.model_tensors(run)
    change(tensors, about)
    checkpoint.write(run.path / checkpoint.MODEL, tensors, about)


@pytest.mark.parametrize("change, says", [
    (lambda t, a: a.update(format=99), "newer"),
    (lambda t, a: a.update(format=-1), "format"),
    (lambda t, a: a.update(kind="resume"), "no model"),
    (lambda t, a: a["model"].update(hidden=4), "expected"),
    (lambda t, a: a["model"].update(hidden="3"), "--hidden"),
    (lambda t, a: a["model"].pop("cell"), "cell"),
    (lambda t, a: a["model"].update(vocabulary=5), "expected"),
    (lambda t, a: a["tokenizer"].update(characters="abc"), "tokenizer has 4 tokens"),
    (lambda t, a: a["tokenizer"].update(level="page"), "level"),
    (lambda t, a: a.pop("text"), "text"),
    (lambda t, a: t["weights.output.b"].__setitem__(0, np.nan), "finite"),
    (lambda t, a: t.update({"weights.output.b": t["weights.output.b"].astype(np.float64)}), "float64"),
    (lambda t, a: t.update({"weights.more": np.zeros(1, np.float32)}), "unknown"),
    (lambda t, a: t.pop("weights.layers.1.b_h"), "missing"),
    (lambda t, a: t.pop("unigram"), "unigram"),
])
def test_what_does_not_fit_together_is_refused(run, change, says):
    rewritten(run, change)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(run.path)


def test_a_folder_or_file_that_is_no_run_is_named(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    places = {"none": "no such run", "": "not a run", "text.txt": "not a file that charrnn wrote"}
    for path, says in ((tmp_path / name, says) for name, says in places.items()):
        with pytest.raises(CheckpointError, match=says):
            checkpoint.load(path)


def test_metadata_is_one_key_of_canonical_json(run):
    data = (run.path / checkpoint.MODEL).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    (ours,) = header["__metadata__"].values()
    about = json.loads(ours)
    digest = about.pop("sha256")
    assert ours == '{"sha256":"' + digest + '",' + json.dumps(about, sort_keys=True, separators=(",", ":"))[1:]
