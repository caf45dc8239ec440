"""Training runs: the same seed gives the same bytes, an interrupted run ends like one that was not, the best model is kept."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from charrnn import checkpoint, optim, planning, recipe, trainer, training
from charrnn.checkpoint import load
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.errors import CheckpointError, TrainingError, UsageError
from charrnn.evaluation import evaluate
from charrnn.events import End, Evaluation, Notice, Sample, Start, Step
from charrnn.model import Layer, Model
from charrnn.progress import Progress
from charrnn.text import open_text
from charrnn.trainer import Trainer, first
from charrnn.training import train
from charrnn.update import TAUGHT

FORMS = [
    {"cell": "lstm"}, {"cell": "lstm", "layers": 2, "level": "word"}, {"cell": "gru", "level": "byte"},
    {"cell": "gru", "gru_reset": "after", "level": "subword", "embedding": 0}, {"cell": "rnn", "activation": "relu"}, {"cell": "mlp"},
    {"cell": "lstm", "layers": 2, "steps": 10, "generations": 3, "weight_drop": 0.2}, {"cell": "gru", "steps": 15, "generations": 2},
]


def settings(**more):
    return TrainingConfig(**{"hidden": 12, "batch": 3, "window": 11, "steps": 30, "dropout": 0.3, "threads": 1, **more})


def corpus_of(path, config):
    return prepare(open_text([path]), level=config.level, vocab_size=config.vocab_size, valid=config.valid)


def files(run):
    return {name: (run / name).read_bytes() for name in (checkpoint.MODEL, checkpoint.METRICS)}


def state(run):
    """The exact state, but for the seconds it took."""
    tensors, about = checkpoint.read(run / checkpoint.RESUME)
    del about["progress"]["seconds"], about["sha256"]
    return {name: value.tobytes() for name, value in tensors.items()}, about


@pytest.mark.parametrize("form", FORMS, ids=lambda f: "-".join(map(str, f.values())))
def test_resumed_equals_uninterrupted(form, small_text, tmp_path):
    config = settings(**form)
    corpus = corpus_of(small_text, config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(corpus, config, whole))
    for session, limit in enumerate((7, 1, 14, 1000)):  # 14 more steps cross an evaluation
        left = iter([False] * (limit - 1))
        *_, end = train(corpus, config, parts, resume=session > 0, stop=lambda left=left: next(left, True))
        assert end.reason == ("finished" if limit > 100 else "interrupted")
    assert files(parts) == files(whole)
    assert state(parts) == state(whole)


@pytest.mark.parametrize("omitted", ["weights.", "optimizer.", "state.", "generator", "step", "nats"])
def test_a_state_with_a_part_left_out_is_noticed(omitted, small_text, tmp_path, monkeypatch):
    """The test above can fail: whatever part of the state is not brought back shows in the final bytes."""
    config = settings(steps=20)
    corpus = corpus_of(small_text, config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(corpus, config, whole))
    left = iter([False] * 6)
    list(train(corpus, config, parts, stop=lambda: next(left, True)))
    fresh = Trainer(corpus, config, recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size),
                    recipe.plan(config, recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size), corpus.training.tokens),
                    torch.device("cpu"))
    fresh.step()
    tensors, about = checkpoint.read(parts / checkpoint.RESUME)
    if omitted in about["progress"]:
        about["progress"][omitted] += 1
    else:
        tensors.update({name: value for name, value in fresh.tensors().items() if name.startswith(omitted)})
    del about["sha256"], about["format"]
    checkpoint.write(parts / checkpoint.RESUME, tensors, about)
    list(train(corpus, config, parts, resume=True))
    assert state(parts) != state(whole)


@pytest.mark.parametrize("omitted", ["teacher.", "lesson."])
def test_a_teacher_that_is_not_brought_back_is_noticed(omitted, small_text, tmp_path):
    config = settings(steps=10, generations=2)
    corpus = corpus_of(small_text, config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(corpus, config, whole))
    left = iter([False] * 12)
    list(train(corpus, config, parts, stop=lambda: next(left, True)))
    tensors, about = checkpoint.read(parts / checkpoint.RESUME)
    assert any(name.startswith(omitted) for name in tensors)
    del about["sha256"], about["format"]
    other = {name: value + 1 if name.startswith(omitted) else value for name, value in tensors.items()}
    checkpoint.write(parts / checkpoint.RESUME, other, about)
    list(train(corpus, config, parts, resume=True))
    found, expected = state(parts)[0], state(whole)[0]
    assert any(found[name] != expected[name] for name in found if name.startswith("weights."))
    checkpoint.write(parts / checkpoint.RESUME, {name: value for name, value in tensors.items() if not name.startswith(omitted)}, about)
    with pytest.raises(CheckpointError, match=omitted[:-1]):
        list(train(corpus, config, parts, resume=True))


def test_dropout_gives_way_where_the_held_out_part_costs_less_and_resumes_where_it_was(tmp_path, monkeypatch):
    """The held-out part repeats what the rest has beside letters at random. A share that was given stays."""
    path, random, drawn = tmp_path / "half.txt", np.random.default_rng(1), []
    path.write_text("".join("abcd" * 5 + "".join(random.choice(list("abcd"), 20)) for _ in range(25)) + "abcd" * 30, encoding="utf-8")
    masks = Model.masks

    def recorded(model, rows, *, dropout, **more):
        drawn.append(dropout)
        return masks(model, rows, dropout=dropout, **more)

    def dropped(run, *limits, **more):
        config, drawn[:], told = settings(steps=160, lr=0.01, generations=2, **{"dropout": None, **more}), [], {}
        corpus = corpus_of(path, config)
        for session, limit in enumerate((*limits, 1000)):
            left = iter([False] * limit)
            events = train(corpus, config, run, resume=session > 0, stop=lambda left=left: next(left, True))
            told |= {event.step: event.dropout for event in events if isinstance(event, Step)}
        assert told and all(drawn[step - 1] == share for step, share in told.items())
        return list(drawn)

    monkeypatch.setattr(Model, "masks", recorded)
    whole, plan = dropped(tmp_path / "whole"), load(tmp_path / "whole").metrics["plan"]
    assert len(whole) == 320 and whole[0] == plan["dropout"] > whole[159] > 0 and plan["student_dropout"] > whole[160] > 0
    assert dropped(tmp_path / "parts", 70, 130) == whole and files(tmp_path / "parts") == files(tmp_path / "whole")
    assert set(dropped(tmp_path / "given", dropout=0.25)) == {0.25}


@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2, "shards": 2}, {"cell": "gru"}, {"cell": "mlp", "level": "byte"}],
                         ids=lambda form: form["cell"])
def test_a_student_learns_from_the_text_and_from_its_teacher(form, small_text):
    """The gradient of one update is that of the plain form; the teacher reads on from where it was, drops nothing and stays as it is."""
    config = settings(**form, precision="float32")
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    one = Trainer(corpus, config, shape, recipe.plan(config, shape, corpus.training.tokens), torch.device("cpu"))
    for _ in range(5):
        one.step()
    one.progress.best = {"temperature": 1.25}
    one.keep()
    old = {name: value / np.float32(1.25) if name.startswith("output.") else value for name, value in one.best.items()}
    one.again()
    assert one.progress.generation == 2 and one.progress.born == 5 and one.progress.steps == 5 + config.steps
    windows = [one.batches[step] for step in (5, 6)]
    taught, state = one.model.zero_state(config.batch), one.model.zero_state(config.batch)
    teacher = Model(shape)
    teacher.load(old)
    found = []
    for window in windows:
        inputs, targets = torch.from_numpy(window.inputs), torch.from_numpy(window.targets)
        with torch.no_grad():
            predicted, taught = teacher.hidden(inputs, taught)
            predicted = torch.softmax(predicted @ teacher.output["w"] + teacher.output["b"], 2)
        generator = torch.Generator()
        generator.set_state(one.generator.get_state())
        masks = one.model.masks(config.batch, dropout=config.dropout, weight_drop=0.0, generator=generator)
        hidden, state = one.model.hidden(inputs, state, masks=masks)
        logits = torch.log_softmax(hidden @ one.model.output["w"] + one.model.output["b"], 2)
        text = -logits.gather(2, targets[..., None]).sum() / targets.numel()
        loss = (1 - TAUGHT) * text - TAUGHT * (predicted * logits).sum() / targets.numel()
        expected = torch.autograd.grad(loss, list(one.model.parameters()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optim, "clip", lambda parameters, limit: found.append([p.grad.clone() for p in parameters]) or 1.0)
            nats, _ = one.step()
        assert nats == pytest.approx(float(text.detach()), rel=1e-5)
        torch.testing.assert_close(found.pop(), list(expected), atol=2e-6, rtol=1e-3)
        state = tuple(tuple(part.detach() for part in layer) for layer in state)
    for name, value in one.teacher.weights().items():
        np.testing.assert_array_equal(value, old[name])


def test_each_generation_begins_anew_and_the_best_model_of_all_is_kept(tmp_path):
    """Each of them learns what contradicts the held-out part, and is stopped early for it."""
    path = tmp_path / "turn.txt"
    path.write_text("ab" * 1800 + "aabb" * 100, encoding="utf-8")
    config = settings(steps=400, hidden=16, dropout=0.0, lr=0.02, generations=3)
    events = list(train(corpus_of(path, config), config, tmp_path / "run"))
    begun = [event.step for event in events if isinstance(event, Notice) and "generation" in event.text]
    assert len(begun) == 2 and events[-1].reason == "stopped early"
    curve = [(event.step, event.validation_nats_per_character) for event in events if isinstance(event, Evaluation)]
    for begin, end in zip((0, *begun), (*begun, events[-1].step)):
        own = [nats for step, nats in curve if begin < step <= end]
        assert len(own) > training.PATIENCE and min(own) == own[-1 - training.PATIENCE]
    assert events[-1].validation_nats_per_character == min(nats for _, nats in curve)
    assert events[-1].best_step == next(step for step, nats in curve if nats == events[-1].validation_nats_per_character)
    assert load(tmp_path / "run").metrics["step"] == events[-1].best_step


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(small_text, tmp_path):
    corpus = corpus_of(small_text, settings())
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(train(corpus, settings(seed=seed), tmp_path / name))
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_events_tell_the_story_in_order(small_text, tmp_path):
    corpus = corpus_of(small_text, settings())
    events = list(train(corpus, settings(), tmp_path / "run"))
    assert isinstance(events[0], Start) and isinstance(events[-1], End)
    assert events[0].steps == 30 and events[-1].reason == "finished" and events[-1].steps == 30
    assert any(isinstance(event, Sample) and event.text for event in events)
    steps = [event for event in events if isinstance(event, Step)]
    assert steps[-1].step == 30 and all(math.isfinite(event.training_nats_per_character) for event in steps)
    assert [event.step for event in events] == sorted(event.step for event in events)
    for event in events:
        json.dumps(event.as_json(), allow_nan=False)
    best = min(event.validation_nats_per_character for event in events if isinstance(event, Evaluation))
    assert events[-1].validation_nats_per_character == best == load(tmp_path / "run").metrics["validation_nats_per_character"]


def test_validation_does_not_touch_the_training(small_text, tmp_path):
    """The same run evaluated at each step or only at the end has the same weights."""
    config = settings()
    corpus = corpus_of(small_text, config)
    model = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    plan = recipe.plan(config, model, corpus.training.tokens)
    one, other = (Trainer(corpus, config, model, plan, torch.device("cpu")) for _ in range(2))
    for _ in range(9):
        one.step()
        other.step()
        other.validate()
    assert {k: v.tobytes() for k, v in one.tensors().items()} == {k: v.tobytes() for k, v in other.tensors().items()}


@pytest.mark.parametrize("level", ["char", "byte"])
@pytest.mark.parametrize("stretch", [1, 7, 25, 50, 10_000])
def test_of_a_long_validation_part_the_beginning_is_scored(level, stretch, tmp_path, monkeypatch):
    monkeypatch.setattr("charrnn.trainer.STRETCH", stretch)
    (tmp_path / "text.txt").write_text("Người ta thấy " * 150, encoding="utf-8")
    corpus = corpus_of(tmp_path / "text.txt", settings(level=level))
    whole = corpus.validation
    text = corpus.tokenizer.decode(whole.store.read(0, 50))  # at byte level it ends within a character
    part = first(whole, 50, corpus.tokenizer)
    assert (part.tokens, part.characters, part.bytes) == (50, len(text), len(text.encode()))
    assert part.store.read(0, 99).tolist() == whole.store.read(0, 50).tolist()
    assert first(whole, whole.tokens, corpus.tokenizer) is whole


def test_when_it_gets_worse_training_stops_and_the_best_model_is_kept(tmp_path):
    """A held-out part that contradicts the training part: learning the one means unlearning the other."""
    path = tmp_path / "turn.txt"
    path.write_text("ab" * 1800 + "aabb" * 100, encoding="utf-8")
    config = settings(steps=400, hidden=16, dropout=0.0, lr=0.02)
    corpus = corpus_of(path, config)
    events = list(train(corpus, config, tmp_path / "run"))
    end = events[-1]
    assert end.reason == "stopped early" and end.steps < 400
    curve = [event for event in events if isinstance(event, Evaluation)]
    assert curve[-1].validation_nats_per_character > end.validation_nats_per_character
    run = load(tmp_path / "run")
    held_out = tmp_path / "held.txt"
    held_out.write_text("aabb" * 100, encoding="utf-8")
    again = evaluate(run, open_text([held_out]))["nats_per_character"]
    assert again == pytest.approx(end.validation_nats_per_character, rel=1e-5)
    best, temperature = checkpoint.read(tmp_path / "run" / checkpoint.RESUME)[0], np.float32(run.metrics["temperature"])
    assert temperature > 1  # it is too sure of "ab"
    for name, value in run.weights.items():
        assert np.array_equal(value, best[f"best.{name}"] / (temperature if name.startswith("output.") else 1))


def test_a_loss_that_is_no_number_ends_training_in_one_line(small_text, tmp_path):
    config = settings(lr=90.0, cell="rnn", activation="relu", clip=1e6, steps=300)
    with pytest.raises(TrainingError, match="--lr") as caught:
        list(train(corpus_of(small_text, config), config, tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_resuming_asks_for_the_same_text_and_settings(small_text, tmp_path):
    config = settings()
    run = tmp_path / "run"
    left = iter([False] * 3)
    list(train(corpus_of(small_text, config), config, run, stop=lambda: next(left, True)))
    other = tmp_path / "other.txt"
    other.write_text("another text " * 200, encoding="utf-8")
    with pytest.raises(UsageError, match="not the text"):
        list(train(corpus_of(other, config), config, run, resume=True))
    with pytest.raises(UsageError, match="settings"):
        list(train(corpus_of(small_text, config), dataclasses.replace(config, clip=0.5), run, resume=True))
    tensors, about = checkpoint.read(run / checkpoint.RESUME)
    tensors["state.0.0"] = tensors["state.0.0"][:, :-1].copy()
    del about["sha256"], about["format"]
    checkpoint.write(run / checkpoint.RESUME, tensors, about)
    with pytest.raises(CheckpointError, match=r"state\.0\.0"):
        list(train(corpus_of(small_text, config), config, run, resume=True))


def test_a_run_in_bfloat16_goes_on_in_float32_where_no_processor_has_it_and_says_so_once(small_text, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "bfloat16", lambda: True)
    config, run = settings(), tmp_path / "run"
    corpus, left = corpus_of(small_text, config), iter([False] * 3)
    first_session = list(train(corpus, config, run, stop=lambda: next(left, True)))
    assert not [note for note in first_session[0].notes if "float32" in note]
    monkeypatch.setattr(trainer, "bfloat16", lambda: False)
    events = list(train(corpus, config, run, resume=True))
    assert len([note for event in events for note in getattr(event, "notes", ()) if "goes on in float32" in note]) == 1
    assert load(run).metrics["plan"]["precision"] == "bfloat16"
    with pytest.raises(UsageError, match="--precision bfloat16"):
        list(train(corpus, settings(precision="bfloat16"), tmp_path / "other"))


def test_a_run_by_amx_says_once_that_its_bits_may_differ_without(small_text, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "bfloat16", lambda: "AMX")
    config, run = settings(), tmp_path / "run"
    corpus, left = corpus_of(small_text, config), iter([False] * 3)
    list(train(corpus, config, run, stop=lambda: next(left, True)))
    monkeypatch.setattr(trainer, "bfloat16", lambda: "AVX512_BF16")
    events = list(train(corpus, config, run, resume=True))
    notes = [note for event in events for note in getattr(event, "notes", ()) if "precision bfloat16 by AMX, here bfloat16:" in note]
    assert len(notes) == 1


@pytest.mark.parametrize("embedding", [0, 5])
def test_another_runs_weights_are_kept_where_the_vocabularies_meet(embedding, small_text, tmp_path):
    config = settings(embedding=embedding, steps=5)
    list(train(corpus_of(small_text, config), config, tmp_path / "one"))
    one = load(tmp_path / "one")
    text = tmp_path / "next.txt"
    text.write_text("người 1 nước 2 phải thương nhau cùng! " * 60, encoding="utf-8")
    corpus = corpus_of(text, config)
    start, *_ = events = list(train(corpus, config, tmp_path / "two", init_from=one, stop=lambda: True))
    (note,) = [note for note in start.notes if "kept" in note]
    assert "'1'" in note and "'T'" in note  # new here, and left behind
    assert isinstance(events[-1], End)
    from charrnn.model import Model
    from charrnn.transfer import copy_weights

    model = Model(one.config.__class__(**{**one.config.as_json(), "vocabulary": corpus.tokenizer.size}))
    copy_weights(model, corpus.tokenizer, one)
    mine, table = model.weights(), "embedding" if embedding else "layers.0.w_x"
    for character in "người phát":
        (here,), (there,) = corpus.tokenizer.encode(character), one.tokenizer.encode(character)
        if here < corpus.tokenizer.size and there < one.tokenizer.size:
            np.testing.assert_array_equal(mine[table][here], one.weights[table][there])
            np.testing.assert_array_equal(mine["output.w"][:, here], one.weights["output.w"][:, there])
            assert mine["output.b"][here] == one.weights["output.b"][there]
    np.testing.assert_array_equal(mine["layers.0.w_h"], one.weights["layers.0.w_h"])


@pytest.mark.parametrize("text", ["a", "hello", "a" * 3000, "one long line " * 300, "dos\r\nlines\r\n" * 50, "👩‍👩‍👧 emoji 🎉 " * 100,
                                  "e\u0323\u0302 combining " * 100, "שלום עולם " * 120, "\ufeffwith a mark " * 100])
@pytest.mark.parametrize("level", ["char", "word", "subword", "byte"])
def test_any_text_trains(text, level, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    config = TrainingConfig(level=level, hidden=4, steps=3, threads=1)
    *_, end = train(corpus_of(path, config), config, tmp_path / "run")
    assert end.reason == "finished" and math.isfinite(end.validation_nats_per_character)
    assert evaluate(load(tmp_path / "run"), open_text([path]))["characters"] == len(text.removeprefix("\ufeff"))


@pytest.mark.parametrize("generations", [None, 3])
def test_the_time_given_is_kept_when_the_machine_changes_its_pace(generations, tmp_path, monkeypatch):
    """A clock of our own: each step takes 20 ms, of a student more, then from one moment on three times as long; an evaluation 100."""
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(97 + i * i % 23) for i in range(60_000)), encoding="utf-8")
    config = TrainingConfig(time="60s", hidden=4, threads=1, batch=2, window=2, generations=generations)
    corpus = corpus_of(path, config)
    now, slow = [0.0], [False]
    step, validate = Trainer.step, Trainer.validate

    def stepped(self):
        now[0] += (0.06 if slow[0] else 0.02) * (1.0 if self.teacher is None else 1.2)
        return step(self)

    def validated(self, stop):
        now[0] += 0.1
        return validate(self, stop)

    monkeypatch.setattr(Trainer, "step", stepped)
    monkeypatch.setattr(Trainer, "validate", validated)
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(planning, "measure", lambda trainer, threads, limit: (1, 0.02, 0.1))
    ends = []
    for turn in (10**9, 15.0):
        now[0], slow[0] = 0.0, False
        plans = []
        for event in train(corpus, config, tmp_path / f"run{turn}"):
            slow[0] = now[0] > turn
            if isinstance(event, Step):
                plans.append(event.steps)
        ends.append(event)
        assert event.reason == "finished" and event.seconds == pytest.approx(60, rel=0.05)
        assert generations or (len(set(plans)) > 1) == (turn < 100)
        progress = Progress.from_json(checkpoint.read(tmp_path / f"run{turn}" / checkpoint.RESUME)[1]["progress"])
        born = [at for at, way, _ in progress.plans if way == 0]
        assert len(born) == progress.generation == (generations or 1)
        lengths = [end - begin for begin, end in zip(born, (*born[1:], event.steps))]
        assert min(lengths) > (0.6 if turn > 100 else 0.25) * max(lengths)
    assert ends[1].steps < 0.6 * ends[0].steps


@pytest.mark.parametrize("form", [{"cell": "lstm", "layers": 2}, {"cell": "gru", "gru_reset": "after"}, {"cell": "rnn", "embedding": 0}],
                         ids=lambda f: f["cell"])
def test_the_gpus_path_in_bfloat16_learns_the_same(form, small_text, monkeypatch):
    """On the CPU: products in bfloat16, weights, gradients, state and loss in float32, and nearly the same curve."""
    config = settings(**form)
    corpus = corpus_of(small_text, config)
    shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
    plan = recipe.plan(config, shape, corpus.training.tokens)
    monkeypatch.setattr(Layer, "forward", Layer.by_cudnn)
    monkeypatch.setattr("charrnn.trainer.multiplies_bfloat16", lambda *_: True)
    exact, single, short = (Trainer(corpus, config, shape, dataclasses.replace(plan, precision=name), torch.device("cpu"))
                            for name in ("float32", "float32", "bfloat16"))
    expected = [exact.step()[0] for _ in range(30)]
    assert [single.step()[0] for _ in range(30)] == expected
    found = [short.step()[0] for _ in range(30)]
    assert found != expected and found[-1] < 0.98 * found[0]
    np.testing.assert_allclose(found, expected, rtol=0.03)
    parts = [*short.model.parameters(), *(part.grad for part in short.model.parameters()), *sum(short.state, ())]
    assert {part.dtype for part in parts if part is not None} == {torch.float32}
