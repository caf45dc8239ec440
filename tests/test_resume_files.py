"""The exact state of a run as a stranger may have made it: refused in one line before anything is made of its sizes."""

import copy
import math

import numpy as np
import pytest
from conftest import VERSE
from test_training import corpus_of, settings

from charrnn import checkpoint
from charrnn.errors import CheckpointError
from charrnn.training import train


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A corpus, its settings, and the tensors and description of a run that was stopped after thirteen steps."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "verse.txt").write_text(VERSE * 18, encoding="utf-8")
    config = settings(cell="gru")
    corpus, left = corpus_of(folder / "verse.txt", config), iter([False] * 12)
    list(train(corpus, config, folder / "run", stop=lambda: next(left, True)))
    tensors, about = checkpoint.read(folder / "run" / checkpoint.RESUME)
    del about["sha256"], about["format"]
    return corpus, config, tensors, about, (folder / "run" / checkpoint.MODEL).read_bytes()


CHANGES = {
    "nothing": None,
    "no kind of its own": lambda t, a: a.pop("progress"),
    "progress that is a list": lambda t, a: a.update(progress=[]),
    "a field too many": lambda t, a: a["progress"].update(more=1),
    "a field missing": lambda t, a: a["progress"].pop("waited"),
    "a step of text": lambda t, a: a["progress"].update(step="4"),
    "a true step": lambda t, a: a["progress"].update(step=True),
    "a step below none": lambda t, a: a["progress"].update(step=-1),
    "a step past the end": lambda t, a: a["progress"].update(step=31),
    "a step without end": lambda t, a: a["progress"].update(step=2**63),
    "no plans": lambda t, a: a["progress"].update(plans=[]),
    "plans that are numbers": lambda t, a: a["progress"].update(plans=[1]),
    "plans that end before they begin": lambda t, a: a["progress"].update(plans=[[0, 0.0, 0]]),
    "plans that go backward": lambda t, a: a["progress"].update(plans=[[0, 0.0, 30], [0, 0.5, 30]]),
    "plans past the whole": lambda t, a: a["progress"].update(plans=[[0, 0.0, 30], [2, 1.0, 30]]),
    "plans without end": lambda t, a: a["progress"].update(plans=[[0, 0.0, 10**12]]),
    "a curve of texts": lambda t, a: a["progress"].update(curve=[["\x1b", 1.0, 2.0]]),
    "a curve of enormous losses": lambda t, a: a["progress"].update(curve=[[1, 1e300, 2.0]]),
    "seconds below none": lambda t, a: a["progress"].update(seconds=-1.0),
    "seconds of text": lambda t, a: a["progress"].update(seconds="1"),
    "done with escapes": lambda t, a: a["progress"].update(done="\x1b[2J"),
    "best figures of text": lambda t, a: a["progress"].update(best={"step": "\x1b[2J"}),
    "best figures that are missing": lambda t, a: a["progress"].update(best={"step": 3}),
    "a temperature of nothing": lambda t, a: a["progress"]["best"].update(temperature=0),
    "a plan of a billion rows": lambda t, a: a["plan"].update(batch=10**9),
    "a plan of a billion tokens": lambda t, a: a["plan"].update(window=10**9),
    "a plan of other rows": lambda t, a: a["plan"].update(batch=2),
    "a plan with more": lambda t, a: a["plan"].update(more=1),
    "a plan of text": lambda t, a: a["plan"].update(lr="x"),
    "units without end": lambda t, a: a["model"].update(hidden=65536, layers=64),
    "an embedding without end": lambda t, a: a["model"].update(embedding=65536),
    "another vocabulary": lambda t, a: a["model"].update(vocabulary=2**24),
    "another tokenizer": lambda t, a: a.update(tokenizer="0" * 64),
    "a tensor too many": lambda t, a: t.update(more=np.zeros(3)),
    "a weight too many": lambda t, a: t.update({"weights.more": np.zeros(3, np.float32)}),
    "a weight that is no number": lambda t, a: t.update({"weights.output.b": np.full_like(t["weights.output.b"], math.nan)}),
    "an optimizer without end": lambda t, a: t.update({name: np.full_like(value, np.inf) for name, value in t.items()
                                                       if name.startswith("optimizer.") and value.ndim}),
    "a state of other units": lambda t, a: t.update({"state.0.0": np.zeros((3, 5), np.float32)}),
    "two generators": lambda t, a: t.update({"generator.cuda": np.zeros(16, np.uint8)}),
    "no generator": lambda t, a: t.pop("generator"),
    "half a generator": lambda t, a: t.update(generator=t["generator"][:100].copy()),
    "a generator of noise": lambda t, a: t.update(generator=np.full_like(t["generator"], 255)),
    "a generator that draws from beyond its end": lambda t, a: t.update(generator=np.concatenate(
        [t["generator"][:8], np.frombuffer(np.int32(600).tobytes() + np.int32(1).tobytes() + np.uint64(624).tobytes(), np.uint8),
         t["generator"][24:]])),
    "a generator of floats": lambda t, a: t.update(generator=t["generator"].astype(np.float32)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_states_are_refused(name, state, tmp_path):
    corpus, config, tensors, about, model = state
    tensors, about = dict(tensors), copy.deepcopy(about)
    if CHANGES[name]:
        CHANGES[name](tensors, about)
    (tmp_path / checkpoint.MODEL).write_bytes(model)
    checkpoint.write(tmp_path / checkpoint.RESUME, tensors, about)
    if CHANGES[name] is None:  # the state itself is good
        assert list(train(corpus, config, tmp_path, resume=True))[-1].steps == 30
        return
    with pytest.raises(CheckpointError) as caught:
        list(train(corpus, config, tmp_path, resume=True))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value) and len(str(caught.value)) < 400


def test_random_numbers_of_another_kind_of_device_are_drawn_anew(state, tmp_path):
    """The rest of the state is as good as before; what is dropped from here on is other than it would have been, but the same each time."""
    corpus, config, tensors, about, model = state
    ends = []
    for turn, name in enumerate(("generator", "generator.cuda", "generator.cuda")):
        run = tmp_path / str(turn)
        given = {one: value for one, value in tensors.items() if one != "generator"}
        given[name] = tensors["generator"] if name == "generator" else np.zeros(16, np.uint8)
        run.mkdir()
        (run / checkpoint.MODEL).write_bytes(model)
        checkpoint.write(run / checkpoint.RESUME, given, about)
        assert list(train(corpus, config, run, resume=True))[-1].steps == 30
        ends.append({one: value.tobytes() for one, value in checkpoint.read(run / checkpoint.RESUME)[0].items()})
    assert ends[1] == ends[2] and ends[1]["weights.output.w"] != ends[0]["weights.output.w"]
