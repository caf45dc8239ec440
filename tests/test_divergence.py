"""What is not a number, put into each place where it could arise: no file holds it, and the run recovers or ends with what to try."""

import math

import numpy as np
import pytest
import torch
from conftest import cases

from charrnn import checkpoint
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.errors import TrainingError
from charrnn.events import End, Notice
from charrnn.text import open_text
from charrnn.trainer import LOWER, RETREATS, SKIPPED, Trainer
from charrnn.training import train

CONFIG = TrainingConfig(cell="gru", gru_reset="after", layers=2, hidden=8, embedding=4, batch=3, window=11, steps=60, threads=1)
PARAMETERS = ("embedding", "layers.0.w_x", "layers.0.w_h", "layers.0.b", "layers.0.b_h", "layers.1.w_x", "output.w", "output.b")
MOMENTS = ("momentum.layers.0.w_h", "exp_avg.embedding", "exp_avg_sq.output.w", "step.output.b")
PLACES = [*(f"weight {name}" for name in PARAMETERS), *(f"gradient {name}" for name in PARAMETERS), *(f"moment {name}" for name in MOMENTS),
          "state", "loss", "validation"]
VALUES = [math.inf, math.nan, -math.inf]


@pytest.fixture
def corpus(small_text):
    return prepare(open_text([small_text]), level="char")


def put(trainer, place, value):
    """One `value` into a trainer, at a place."""
    kind, _, name = place.partition(" ")
    if kind == "weight":
        with torch.no_grad():
            dict(trainer.model.named_parameters())[name].view(-1)[0] = value
    elif kind == "moment":
        trainer.optimizer.state()[name].view(-1)[:1] = value
    elif kind == "state":
        trainer.state[0][0][0, 0] = value


def faulty(monkeypatch, place, value, at):
    """Training whose update number `at` goes wrong in a place; gradients and losses do so by themselves, once."""
    import charrnn.update as module

    update, validate, summed = Trainer.update, Trainer.validate, module.summed_nats
    kind, _, name = place.partition(" ")
    going = []

    def updated(self, window):
        going[:] = [self.progress.step == at]
        if going[0]:
            put(self, place, value)
        if not going[0] or kind != "gradient":
            return update(self, window)
        hook = dict(self.model.named_parameters())[name].register_hook(lambda grad: grad * value)
        try:
            return update(self, window)
        finally:
            hook.remove()

    monkeypatch.setattr(Trainer, "update", updated)
    monkeypatch.setattr(module, "summed_nats", lambda *parts, **how: summed(*parts, **how) * (value if kind == "loss" and going[0] else 1))

    def validated(self, stop=lambda: False):
        score, temperature = validate(self, stop)
        wrong = kind == "validation" and self.progress.step == at
        return (type(score)(value, score.tokens, score.characters, score.bytes) if wrong else score), temperature

    monkeypatch.setattr(Trainer, "validate", validated)


def finite_files(run):
    for name in (checkpoint.MODEL, checkpoint.RESUME, checkpoint.PREVIOUS):
        if (run / name).exists():
            tensors, _ = checkpoint.read(run / name)
            assert all(np.isfinite(value).all() for value in tensors.values() if value.dtype.kind == "f"), name
    return True


@pytest.mark.parametrize("place, value", [(place, value) for number, place in enumerate(PLACES) for turn, value in enumerate(VALUES)
                                          if cases(1, 3) == 3 or turn == number % 3])
def test_one_value_that_is_no_number(place, value, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("charrnn.training.SAVE_EVERY", 0.0)
    monkeypatch.setattr("charrnn.training.SAVE_LATEST", 0.0)
    faulty(monkeypatch, place, value, at=24)
    run = tmp_path / "run"
    events = [event for event in train(corpus, CONFIG, run) if finite_files(run)]
    end = events[-1]
    assert isinstance(end, End) and end.reason == "finished" and math.isfinite(end.validation_nats_per_character)
    assert end.validation_nats_per_character < corpus.unigram_nats_per_character * 1.2
    told = [event.text for event in events if isinstance(event, Notice)]
    assert any("learnt from this step" in text or "back to the best weights" in text for text in told)


def test_where_it_never_ends_the_run_goes_back_twice_and_then_says_what_to_try(corpus, tmp_path, monkeypatch):
    import charrnn.update as module

    steps, summed = [], module.summed_nats
    step = Trainer.step

    def stepped(self):
        steps.append((self.progress.step, self.progress.retreats))
        return step(self)

    monkeypatch.setattr(Trainer, "step", stepped)
    monkeypatch.setattr(module, "summed_nats", lambda *parts, **how: summed(*parts, **how) * math.nan)
    events = []
    with pytest.raises(TrainingError, match="--lr") as caught:
        events.extend(train(corpus, CONFIG, tmp_path / "run"))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    assert steps == [(at, at // SKIPPED) for at in range(SKIPPED * (RETREATS + 1))]


def test_after_going_back_the_rate_is_lower_and_the_weights_are_the_best(corpus, tmp_path, monkeypatch):
    seen = {}
    update, retreat = Trainer.update, Trainer.retreat

    def updated(self, window):
        nats = update(self, window)
        seen[self.progress.step] = self.learning_rate / self.plan.lr
        return nats

    def retreated(self):
        retreat(self)
        weights = self.model.weights()
        assert all(np.array_equal(weights[name], value) for name, value in self.best.items())
        assert not any(value.any() for value in self.optimizer.state().values())

    monkeypatch.setattr(Trainer, "update", updated)
    list(train(corpus, CONFIG, tmp_path / "well"))
    well = dict(seen)
    monkeypatch.setattr(Trainer, "retreat", retreated)
    faulty(monkeypatch, "weight layers.0.w_h", math.nan, at=24)
    list(train(corpus, CONFIG, tmp_path / "run"))
    changed = [step for step in well if seen[step] != well[step]]
    assert min(changed) == 24 and max(changed) == 59
    assert all(seen[step] == pytest.approx(LOWER * well[step]) for step in range(24 + SKIPPED, 60))


def test_a_run_that_went_back_resumes_to_the_same_bytes(corpus, tmp_path, monkeypatch):
    """Steps that are skipped and the return to the best weights are part of the exact state."""
    config = TrainingConfig(cell="rnn", activation="relu", hidden=8, batch=3, window=11, steps=60, threads=1, lr=30.0, clip=1e5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    gone_back = []
    retreat = Trainer.retreat
    monkeypatch.setattr(Trainer, "retreat", lambda self: (gone_back.append(self.progress.step), retreat(self)))

    def ended(run, **more):
        try:
            return [type(event).__name__ for event in train(corpus, config, run, **more)][-1]
        except TrainingError as error:
            return str(error)

    first = ended(whole)
    places, gone_back[:] = list(gone_back), []
    assert places
    for session in range(100):
        left = iter([False] * 9)
        found = ended(parts, resume=session > 0, stop=lambda left=left: next(left, True))
        done = not (parts / checkpoint.RESUME).exists() or checkpoint.read(parts / checkpoint.RESUME)[1]["progress"]["done"]
        if done or found != "End":
            break
    assert found == first
    if first == "End":
        assert (whole / checkpoint.MODEL).read_bytes() == (parts / checkpoint.MODEL).read_bytes()
