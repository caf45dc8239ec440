"""What a run's folder goes through: states that are damaged, disks that fail, machines that change, evaluations that are cut short."""

import errno
import os

import pytest

from charrnn import checkpoint, disk, machine
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.errors import CheckpointError, StorageError
from charrnn.events import Evaluation, Notice, Sample, Step
from charrnn.text import open_text
from charrnn.trainer import Halted, Trainer
from charrnn.training import train

CONFIG = TrainingConfig(hidden=8, batch=3, window=11, steps=20, threads=1, dropout=0.2)


@pytest.fixture
def corpus(small_text):
    return prepare(open_text([small_text]), level="char")


@pytest.fixture(autouse=True)
def saving_always(monkeypatch):
    monkeypatch.setattr("charrnn.training.SAVE_EVERY", 0.0)
    monkeypatch.setattr("charrnn.training.SAVE_LATEST", 0.0)


def some_steps(count):
    """A `stop` that says yes once so many steps were made, and the list that the events go through."""
    seen = []
    return seen, lambda: sum(isinstance(event, Step) for event in seen) >= count


def trained(corpus, run, count=None, **more):
    seen, stop = some_steps(count or 10**9)
    for event in train(corpus, CONFIG, run, stop=stop, **more):
        seen.append(event)
    return seen


def content(run):
    return {name: (run / name).read_bytes() for name in (checkpoint.MODEL, checkpoint.METRICS)}


@pytest.fixture
def whole(corpus, tmp_path):
    trained(corpus, tmp_path / "whole")
    return content(tmp_path / "whole")


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch):
    monkeypatch.setattr("charrnn.training.SHOW_EVERY", 0.0)


def test_a_damaged_state_gives_way_to_the_one_before_it(corpus, tmp_path, whole):
    run = tmp_path / "run"
    trained(corpus, run, 7)
    path = run / checkpoint.RESUME
    step = checkpoint.read(run / checkpoint.PREVIOUS)[1]["progress"]["step"]
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-1]), path.unlink):
        damage()
        start, *_ = trained(corpus, run, 2, resume=True)
        (note,) = [note for note in start.notes if checkpoint.PREVIOUS in note]
        assert start.step == step and str(path) in note
        step = checkpoint.read(run / checkpoint.PREVIOUS)[1]["progress"]["step"]
    assert not any(checkpoint.PREVIOUS in note for note in trained(corpus, run, resume=True)[0].notes)
    assert content(run) == whole and not (run / checkpoint.PREVIOUS).exists()


def test_where_neither_state_can_be_read_the_newer_one_is_named(corpus, tmp_path):
    run = tmp_path / "run"
    trained(corpus, run, 7)
    for name in (checkpoint.RESUME, checkpoint.PREVIOUS):
        (run / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=checkpoint.RESUME):
        trained(corpus, run, resume=True)


def test_model_and_metrics_are_made_from_the_state(corpus, tmp_path, whole):
    run = tmp_path / "run"
    trained(corpus, run, 12)
    before = content(run)
    (run / checkpoint.MODEL).write_bytes(b"damaged")
    (run / checkpoint.METRICS).unlink()
    events = train(corpus, CONFIG, run, resume=True)
    next(events)
    assert content(run) == before
    events.close()
    trained(corpus, run, resume=True)
    assert content(run) == whole


def test_a_save_that_fails_is_told_once_and_tried_again_and_the_last_one_ends_the_run(corpus, tmp_path, whole, monkeypatch):
    run, fsync, full = tmp_path / "run", os.fsync, []

    def failing(fd):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(disk.os, "fsync", failing)
    seen, stop = [], lambda: False
    for event in train(corpus, CONFIG, run, stop=stop):
        seen.append(event)
        if isinstance(event, Step):
            full[:] = [True] if 5 <= event.step < 9 else []
    told = [event.text for event in seen if isinstance(event, Notice)]
    assert len(told) == 1 and "No space left" in told[0] and str(run) in told[0]
    assert content(run) == whole
    run = tmp_path / "full"
    with pytest.raises(StorageError, match="No space left") as caught:
        for event in train(corpus, CONFIG, run):
            full[:] = [True] if event.step >= 12 else []
    assert "--resume" in str(caught.value) and "\n" not in str(caught.value)
    full.clear()
    assert checkpoint.newest_state(run)[1]["progress"]["step"] == 11
    trained(corpus, run, resume=True)
    assert content(run) == whole


def test_an_evaluation_that_is_cut_short_is_made_again(corpus, tmp_path, whole):
    run = tmp_path / "run"
    seen = []
    stop = lambda: isinstance(seen[-1], Step) and seen[-1].step in (10, 20)  # asked next as the first tokens are read
    for session in range(3):
        seen.clear()
        for event in train(corpus, CONFIG, run, resume=session > 0, stop=stop):
            seen.append(event)
        progress = checkpoint.read(run / checkpoint.RESUME)[1]["progress"]
        assert (progress["due"], event.reason) == ((True, "interrupted") if session < 2 else (False, "finished"))
        assert [point[0] for point in progress["curve"]] == [10, 20][:session]
    assert content(run) == whole


def test_an_evaluation_that_is_cut_short_in_a_run_with_a_time(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("charrnn.planning.measure", lambda trainer, threads, limit: (1, 0.001, 0.01))
    validate, calls = Trainer.validate, []

    def halted_every_second_time(self, stop):
        calls.append(self)
        if len(calls) % 2:
            raise Halted
        return validate(self, stop)

    monkeypatch.setattr(Trainer, "validate", halted_every_second_time)
    config = TrainingConfig(hidden=8, batch=3, window=11, time="1s", threads=1)
    for session in range(100):
        *_, end = train(corpus, config, tmp_path / "run", resume=session > 0)
        if end.reason != "interrupted":
            break
    assert end.reason in ("finished", "stopped early") and session > 1


def test_another_machine_is_told_once(corpus, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trained(corpus, run, 3)
    other = machine.makings(1, "float32") | {"torch": "9.9"}
    monkeypatch.setattr(machine, "makings", lambda *_: other)
    notes = [trained(corpus, run, 3, resume=True)[0].notes for _ in range(2)]
    assert [sum("bits may differ" in note for note in session) for session in notes] == [1, 0]
    assert any("9.9" in note and "torch" in note for note in notes[0])


def test_a_state_that_is_not_finite_is_not_saved(corpus, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trained(corpus, run, 5)
    before = (run / checkpoint.RESUME).read_bytes()
    step = Trainer.step

    def broken(self):
        found = step(self)
        self.state[0][0][0, 0] = float("nan")
        return found

    monkeypatch.setattr(Trainer, "step", broken)
    seen, stop = some_steps(1)
    for event in train(corpus, CONFIG, run, resume=True, stop=stop):
        seen.append(event)
    assert (run / checkpoint.RESUME).read_bytes() == before
    assert any(isinstance(event, Notice) and "not saved" in event.text for event in seen)
    assert not any(isinstance(event, Evaluation) for event in seen)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"nonsense\n", b'{"step": 1}\n', b"5\n", b"[" * 100_000])
def test_samples_that_cannot_be_read_do_not_end_the_training(content, corpus, tmp_path):
    (tmp_path / "samples.jsonl").write_bytes(content)
    *events, end = trained(corpus, tmp_path)
    assert isinstance(events[-1], Sample) and end.reason == "finished"
    assert [row["text"] for row in checkpoint.recorded(tmp_path)] == [event.text for event in events if isinstance(event, Sample)]


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.METRICS, "samples.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "zeros"])
def test_what_never_ends_in_the_place_of_a_file_is_replaced(name, kind, corpus, tmp_path):
    trained(corpus, tmp_path)
    before = content(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name) if kind == "pipe" else (tmp_path / name).symlink_to("/dev/zero")
    trained(corpus, tmp_path, resume=True)
    assert content(tmp_path) == before
