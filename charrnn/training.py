"""Training as a generator of events. It draws nothing, prints nothing, and can be resumed from any step."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from charrnn import advice, checkpoint, machine, recipe
from charrnn.checkpoint import Run
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.corpus import Corpus
from charrnn.disk import storage, write_whole
from charrnn.errors import CheckpointError, TrainingError, UsageError
from charrnn.evaluation import Held, score
from charrnn.events import End, Evaluation, Event, Sample, Saved, Start, Step
from charrnn.metrics import perplexity
from charrnn.recipe import Plan
from charrnn.sampling import generate
from charrnn.trainer import SCORED, Progress, Trainer
from charrnn.transfer import copy_weights

PATIENCE = 8  # evaluations without a better one before training stops
SHOW_EVERY = 0.2  # seconds between two step events
SAMPLE_EVERY = 10.0  # seconds between two samples
SAVE_EVERY = 2.0  # seconds between two saves, at least
SAVE_LATEST = 60.0  # and at most
PROBE = 1.5  # seconds that measuring the speed may take


def measure(trainer: Trainer, threads: int, limit: float) -> tuple[int, float, float]:
    """`threads`, and the seconds that a step and an evaluation take with so many of them; `trainer` is used up. Another busy process
    on the machine can make one thread the faster way."""
    machine.use_threads(threads)
    times: list[float] = []
    end = time.monotonic() + limit
    while len(times) < 4 or (time.monotonic() < end and len(times) < 200):
        began = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - began)
    tokens = trainer.scored.store
    part = min(tokens.count, 1 << 15)
    began = time.perf_counter()
    score(trainer.model, Held(tokens.read(0, part)))
    return threads, statistics.median(times[2:]), (time.perf_counter() - began) * tokens.count / part


def train(corpus: Corpus, config: TrainingConfig, run: Path, *, resume: bool = False, init_from: Run | None = None,
          stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train on `corpus` into the folder `run`, which is made; yields what happens, an End last.

    resume: go on from the state in the folder, exactly. init_from: start from another run's weights. `stop` is asked after each
    step; once it says yes the state is saved and the run ends as interrupted. Raises UsageError, CheckpointError, TrainingError
    and StorageError.
    """
    began = time.monotonic()
    notes = list(corpus.notes)
    where = machine.device(config.device)
    if resume:
        trainer = resumed(corpus, config, run, where)
    else:
        with storage(run):
            run.mkdir(parents=True, exist_ok=True)
        trainer = fresh(corpus, config, init_from, where, notes, began)
    if trainer.scored.tokens < corpus.validation.tokens:
        notes.append(f"scored while training: the first {trainer.scored.characters:,} of the {corpus.validation.characters:,} characters "
                     "held out")
    session, progress, plan = Session(trainer, run), trainer.progress, trainer.plan
    earlier = progress.seconds
    shown = sampled = time.monotonic()
    tokens, paid, busy = 0, 0.0, 0.0  # since the last step event
    yield session.start(machine.use_threads(config.threads or plan.threads), tuple(notes))
    while not progress.done:
        before = time.monotonic()
        nats, count = trainer.step()
        now = time.monotonic()
        tokens += count
        paid += nats * count
        busy += now - before
        progress.seconds = earlier + now - began
        last = progress.step == progress.steps
        due = last or progress.step % plan.evaluate_every == 0
        if due or now - shown >= SHOW_EVERY or progress.step == 1:
            yield session.stepped(tokens, paid, busy)
            shown, tokens, paid, busy = now, 0, 0.0, 0.0
        if due:
            yield session.evaluated()
            if not last:
                session.keep_time(earlier - began)
            progress.seconds = earlier + time.monotonic() - began
            if last or (progress.waited >= PATIENCE and corpus.held_out):
                progress.done = "finished" if last else "stopped early"
        ending = bool(progress.done) or stop()
        if ending or time.monotonic() - session.saved >= (SAVE_EVERY if due else SAVE_LATEST):
            yield from session.save()
        if (progress.done or now - sampled >= SAMPLE_EVERY) and not trainer.model.config.bidirectional:
            yield session.sample()
            sampled = time.monotonic()
        if ending:
            break
    yield session.end()


def fresh(corpus: Corpus, config: TrainingConfig, init_from: Run | None, where: torch.device, notes: list[str],
          began: float) -> Trainer:
    """A trainer at step 0, its plan made (and measured, where time is what is given)."""
    tokens = corpus.training.tokens
    model = recipe.shape(config, tokens, corpus.tokenizer.size)
    cores = config.threads or machine.cores()
    known: dict[str, Any] = {"scored": min(corpus.validation.tokens, SCORED), "held_out": corpus.held_out}
    threads = config.threads or recipe.threads(model, *recipe.rows_and_window(config, tokens), cores)
    budget, plan = recipe.budget(config), recipe.plan(config, model, tokens, seconds_per_step=1.0, threads=threads, **known)
    if budget is not None:
        choices = {threads} if config.threads else {cores, 1}
        threads, per_step, per_evaluation = min((measure(Trainer(corpus, config, model, plan, where), count, PROBE / len(choices))
                                                 for count in sorted(choices)), key=lambda found: found[1])
        plan = recipe.plan(config, model, tokens, seconds_per_step=per_step, seconds_per_evaluation=per_evaluation,
                           spent=time.monotonic() - began, threads=threads, **known)
        notes.append(f"measured {1000 * per_step:.3g} ms a step here: {plan.steps:,} steps"
                     + (" are enough for a text of this size" if plan.steps == recipe.most_steps(tokens, plan.batch, plan.window) else
                        f" are planned for {config.time or '3m'}; planned again if the pace changes"))
    trainer = Trainer(corpus, config, model, plan, where)
    if init_from is not None:
        notes.extend(copy_weights(trainer.model, corpus.tokenizer, init_from))
    return trainer


def resumed(corpus: Corpus, config: TrainingConfig, run: Path, where: torch.device) -> Trainer:
    """The trainer as the run's folder holds it. CheckpointError when the text or a setting is another one."""
    path = run / checkpoint.RESUME
    tensors, about = checkpoint.read(path)
    try:
        recorded = TrainingConfig.from_json(about["training"])
        if about["text"] != corpus.digest:
            raise UsageError(f"--resume: {corpus.name} is not the text that {run} was trained on; to go on with another text use "
                             f"--init-from {run} --out NEW")
        if about["tokenizer"] != corpus.tokenizer.digest:
            raise CheckpointError("its tokenizer is another one")
        if dataclasses.replace(config, device=recorded.device, threads=recorded.threads) != recorded:
            raise UsageError("--resume: the settings are not those of the run")
        trainer = Trainer(corpus, recorded, ModelConfig.from_json(about["model"]), Plan.from_json(about["plan"]), where)
        lists = {name: [tuple(item) for item in about["progress"][name]] for name in ("plans", "curve")}
        trainer.progress = Progress(**{**about["progress"], **lists})
        trainer.restore(tensors)
        if trainer.progress.best and not (run / checkpoint.MODEL).is_file():
            raise CheckpointError(f"the best model that it speaks of is gone: there is no {checkpoint.MODEL} beside it")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: incomplete: {error}") from None
    return trainer


class Session:
    """A trainer and the folder that it is saved to."""

    def __init__(self, trainer: Trainer, run: Path) -> None:
        self.trainer, self.run, self.corpus = trainer, run, trainer.corpus
        self.best: Run | None = None  # better than the model on disk
        self.saved = time.monotonic()
        self.budget = recipe.budget(trainer.config)
        self.paced = (trainer.progress.step, time.monotonic())  # the step and moment from which on the pace is measured
        part = self.corpus.training
        self.tokens_per_character = part.tokens / part.characters

    def start(self, threads: int, notes: tuple[str, ...]) -> Start:
        trainer, corpus, model, plan = self.trainer, self.corpus, self.trainer.model.config, self.trainer.plan
        return Start(
            step=trainer.progress.step, run=str(self.run), text=corpus.name, level=corpus.tokenizer.level,
            vocabulary=corpus.tokenizer.size, cell=model.cell, layers=model.layers, hidden=model.hidden, embedding=model.embedding,
            parameters=model.parameters(), training_tokens=corpus.training.tokens, validation_tokens=trainer.scored.tokens,
            steps=trainer.progress.steps, batch=plan.batch, window=plan.window, device=str(trainer.device), threads=threads,
            seconds=trainer.progress.seconds, notes=notes, bidirectional=model.bidirectional, options=trainer.config.options(),
            curve=tuple(trainer.progress.curve))

    def stepped(self, tokens: int, nats: float, seconds: float) -> Step:
        """A step event for the last `tokens`, which cost `nats` and took `seconds`."""
        trainer, step, steps = self.trainer, self.trainer.progress.step, self.trainer.progress.steps
        speed = tokens / max(seconds, 1e-9)
        per_step = trainer.plan.batch * trainer.batches.length / trainer.batches.steps_per_epoch
        return Step(
            step=step, steps=steps, epoch=step / trainer.batches.steps_per_epoch,
            training_nats_per_character=nats / tokens * self.tokens_per_character, learning_rate=trainer.learning_rate,
            gradient_norm=trainer.gradient_norm, characters_per_second=speed / self.tokens_per_character,
            seconds=trainer.progress.seconds, remaining=(steps - step) * per_step / speed)

    def evaluated(self) -> Evaluation:
        """Score the validation part; keep the model if it is the best so far. TrainingError when the loss is not finite."""
        progress = self.trainer.progress
        result = self.trainer.validate()
        if not math.isfinite(result.nats):
            raise TrainingError(f"the validation loss at step {progress.step} is not a number; try a lower --lr")
        training = progress.nats / progress.tokens * self.tokens_per_character
        better = not progress.best or result.nats_per_character < progress.best["validation_nats_per_character"]
        figures = {"training_nats_per_character": training, "validation_nats_per_character": result.nats_per_character,
                   "validation_bits_per_character": result.bits_per_character}
        progress.nats, progress.tokens = 0.0, 0
        progress.curve.append((progress.step, training, result.nats_per_character))
        progress.waited = 0 if better else progress.waited + 1
        if better:
            progress.best = {"step": progress.step, **figures, "validation_nats_per_token": result.nats_per_token}
            self.best = self.snapshot()
        return Evaluation(step=progress.step, best=better, seconds=progress.seconds, validation_perplexity=result.perplexity,
                          bidirectional=self.trainer.model.config.bidirectional, **figures)

    def keep_time(self, offset: float) -> None:
        """Where time is what was given: plan the rest of the run again if the machine's pace has changed, so that it ends in time.
        Called after an evaluation; the run's seconds are time.monotonic() + offset."""
        progress, now = self.trainer.progress, time.monotonic()
        evaluating = now + offset - progress.seconds
        (step, since), self.paced = self.paced, (progress.step, now)
        if self.budget is None:
            return
        per_step = (now - since - evaluating) / (progress.step - step)
        every, left = self.trainer.plan.evaluate_every, progress.steps - progress.step
        per_step += evaluating / every  # each stretch of steps brings its evaluation
        expected = now + offset + left * per_step
        if abs(expected - self.budget) > 0.03 * self.budget:
            steps = progress.step + max(1, int((self.budget - now - offset) / per_step))
            most = recipe.most_steps(self.corpus.training.tokens, self.trainer.plan.batch, self.trainer.plan.window)
            steps = min(steps, max(most, self.trainer.plan.steps))
            if steps != progress.steps:
                progress.plan_again(steps)

    def snapshot(self) -> Run:
        """The model as it is now, as a run."""
        corpus, trainer = self.corpus, self.trainer
        text = {"name": corpus.name, "digest": corpus.digest, "characters": corpus.characters, "held_out": corpus.held_out,
                "training_tokens": corpus.training.tokens, "training_characters": corpus.training.characters,
                "validation_tokens": corpus.validation.tokens, "validation_characters": corpus.validation.characters}
        metrics = {**trainer.progress.best, "curve": list(trainer.progress.curve), "plan": trainer.plan.as_json()}
        return Run(self.run, trainer.model.config, trainer.config, corpus.tokenizer, trainer.model.weights(), corpus.unigram,
                   (corpus.fingerprint.hashes, corpus.fingerprint.below), text, metrics)

    def save(self) -> list[Saved]:
        """Write the best model if it is not on disk yet, the metrics, and the exact state: in this order, so that whatever the state
        refers to is there before it. StorageError."""
        trainer, progress = self.trainer, self.trainer.progress
        written = [Saved(step=progress.step, path=str(self.run / checkpoint.RESUME))]
        if self.best is not None:
            checkpoint.save_model(self.best)
            self.best = None
            written.insert(0, Saved(step=progress.step, path=str(self.run / checkpoint.MODEL)))
        names = ("step", "training_nats_per_character", "validation_nats_per_character")
        lines = "".join(json.dumps(dict(zip(names, point))) + "\n" for point in progress.curve)
        write_whole(self.run / checkpoint.METRICS, lines.encode())
        about = {"kind": "resume", "model": trainer.model.config.as_json(), "training": trainer.config.as_json(),
                 "plan": trainer.plan.as_json(), "text": self.corpus.digest, "tokenizer": self.corpus.tokenizer.digest,
                 "progress": dataclasses.asdict(progress)}
        checkpoint.write(self.run / checkpoint.RESUME, trainer.tensors(), about)
        self.saved = time.monotonic()
        return written

    def sample(self, length: int = 240) -> Sample:
        """A piece of what the model writes now; it takes nothing from the training's own random numbers."""
        step = self.trainer.progress.step
        pieces = generate(self.snapshot(), SamplingConfig(length=length, seed=step))
        return Sample(step=step, text="".join(piece.text for piece in pieces))

    def end(self) -> End:
        """What was reached, and what an expert would say of it."""
        trainer, progress = self.trainer, self.trainer.progress
        read = progress.step * trainer.plan.batch * trainer.batches.length / trainer.batches.steps_per_epoch
        figures = {name: progress.best.get(name, math.nan) for name in (
            "training_nats_per_character", "validation_nats_per_character", "validation_bits_per_character")}
        outlook, said = advice.read_curve(progress.curve, unigram=self.corpus.unigram_nats_per_character,
                                          held_out=self.corpus.held_out, done=progress.done)
        return End(
            step=progress.step, reason=progress.done or "interrupted", run=str(self.run), steps=progress.step,
            best_step=progress.best.get("step", 0), seconds=progress.seconds, parameters=trainer.model.config.parameters(),
            characters_per_second=read / self.tokens_per_character / max(progress.seconds, 1e-9), **figures,
            validation_perplexity=perplexity(progress.best.get("validation_nats_per_token", math.nan)),
            outlook=outlook, advice=(said,) if said else (), bidirectional=trainer.model.config.bidirectional)
