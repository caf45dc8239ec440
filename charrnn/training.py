"""Training as a generator of events. It draws nothing, prints nothing, and can be resumed from any step."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charrnn import checkpoint, kernels, reasons
from charrnn.checkpoint import Run
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus import Corpus
from charrnn.disk import storage
from charrnn.errors import CheckpointError, UsageError
from charrnn.events import Event, Notice
from charrnn.planning import planned
from charrnn.progress import Progress
from charrnn.recipe import Plan
from charrnn.session import Session
from charrnn.trainer import SKIPPED, Trainer
from charrnn.transfer import copy_weights
from charrnn.world import Halted, World

PATIENCE = 8  # evaluations without a better one before training stops
SHOW_EVERY = 0.2  # seconds between two step events
SAMPLE_EVERY = 10.0  # seconds between two samples
SAVE_EVERY = 2.0  # seconds between two saves, at least
SAVE_LATEST = 60.0  # and at most


def train(corpus: Corpus, config: TrainingConfig, run: Path, *, resume: bool = False, init_from: Run | None = None,
          stop: Callable[[], bool] = lambda: False, world: World | None = None) -> Iterator[Event]:
    """Train on `corpus` into the folder `run`, which is made; yields what happens, an End last.

    resume: go on from the state in the folder, exactly. init_from: start from another run's weights. `stop` is asked after each
    step and while the validation part is scored; once it says yes the state is saved and the run ends as interrupted. A save that fails
    on the way is told and tried again later. Each process of a `world` does this; rank 0 alone writes. Raises UsageError, CheckpointError,
    TrainingError and StorageError.
    """
    began = time.monotonic()
    notes = list(corpus.notes)
    world = world or World()
    where = world.device(config.device)
    makings: dict[str, Any] = {}
    lines: tuple[str, ...] = ()
    if resume:
        trainer, makings = resumed(corpus, config, run, where, notes, world)
        if trainer.precision != trainer.plan.precision:
            notes.append(f"begun in {trainer.plan.precision}, which this processor or device does not multiply: goes on in "
                         f"{trainer.precision}, to other bytes than where it was begun")
    else:
        if not world.rank:
            with storage(run):
                run.mkdir(parents=True, exist_ok=True)
        trainer, lines = fresh(corpus, config, init_from, where, notes, began, world)
    if trainer.scored.tokens < corpus.validation.tokens:
        notes.append(f"scored while training: the first {trainer.scored.characters:,} of the {corpus.validation.characters:,} characters "
                     "held out")
    progress, plan = trainer.progress, trainer.plan
    if plan.shards < world.size:
        notes.append(f"{world.size - plan.shards} of {world.size} processes have no rows: the batch of this run is in {plan.shards} parts "
                     "(--shards)")
    session = Session(trainer, run, kernels.use_threads(config.threads or min(plan.threads, world.cores())))
    if resume:
        notes.extend(session.differences(makings))
        session.mend()
    earlier = progress.seconds
    shown = sampled = time.monotonic()
    tokens, paid, busy = 0, 0.0, 0.0  # since the last step event

    def said(limit: float) -> tuple[bool, bool]:
        """Whether to stop; and, which counts if rank 0 says it, whether to save."""
        return stop(), time.monotonic() - session.saved >= limit

    trainer.say = lambda: said(SAVE_LATEST)
    yield session.start(tuple(notes), lines)
    while not progress.done:
        if not progress.due:
            before = time.monotonic()
            nats, count = trainer.step()
            now = time.monotonic()
            tokens += count
            paid += nats * count
            busy += now - before
            progress.seconds = earlier + now - began
            progress.due = progress.step == progress.steps or (progress.step - progress.born) % plan.evaluate_every == 0
            if progress.due or now - shown >= SHOW_EVERY or progress.step == 1:
                yield session.stepped(tokens, paid, busy)
                shown, tokens, paid, busy = now, 0, 0.0, 0.0
            if progress.in_a_row == 1:
                yield Notice(step=progress.step, text="the loss or its gradient is not a number: nothing is learnt from this step")
            if progress.in_a_row == SKIPPED:
                yield session.retreated()
        heard = trainer.heard
        if progress.due:
            with contextlib.suppress(Halted):
                yield session.evaluated(stop)
                progress.due = False
                last = progress.step == progress.steps
                if not last:
                    session.keep_time(earlier - began)
                progress.seconds = earlier + time.monotonic() - began
                if last or (progress.waited >= PATIENCE and corpus.held_out):
                    if born := session.again(earlier - began):
                        yield born
                    else:
                        progress.done = "finished" if last else "stopped early"
                heard = world.agree(*said(SAVE_EVERY))
        ending = bool(progress.done) or progress.due or any(stopping for stopping, _ in heard)
        if ending or heard[0][1]:
            yield from session.save(last=ending)
        telling = progress.done or (not ending and time.monotonic() - sampled >= SAMPLE_EVERY)
        if telling and session.leads:
            yield session.sample()
            sampled = time.monotonic()
        if ending:
            break
    yield session.end()


def fresh(corpus: Corpus, config: TrainingConfig, init_from: Run | None, where: torch.device, notes: list[str],
          began: float, world: World) -> tuple[Trainer, tuple[str, ...]]:
    """‖ A trainer at step 0, and its plan in a few lines."""
    made = planned(corpus, config, where, began=began, world=world)
    trainer = Trainer(corpus, config, made.model, made.plan, where, world)
    if init_from is not None:
        notes.extend(copy_weights(trainer.model, corpus.tokenizer, init_from))
    world.spread(trainer.model.parameters())
    trainer.keep()
    return trainer, reasons.short(made.choices, made.outlook)


def resumed(corpus: Corpus, config: TrainingConfig, run: Path, where: torch.device, notes: list[str],
            world: World) -> tuple[Trainer, Any]:
    """‖ The trainer as the run's folder holds it, and the machine's makings when it was written. CheckpointError when the text or a
    setting is another one."""
    path = run / checkpoint.RESUME
    tensors, about, warning = world.carried(lambda: checkpoint.newest_state(run))
    try:
        recorded = TrainingConfig.from_json(about["training"])
        if about["text"] != corpus.digest:
            raise UsageError(f"--resume: {corpus.name} is not the text that {run} was trained on; to go on with another text use "
                             f"--init-from {run} --out NEW")
        if about["tokenizer"] != corpus.tokenizer.digest:
            raise CheckpointError("its tokenizer is another one")
        if dataclasses.replace(config, device=recorded.device, threads=recorded.threads) != recorded:
            raise UsageError("--resume: the settings are not those of the run")
        model, plan = ModelConfig.from_json(about["model"]), Plan.from_json(about["plan"])
        if model.vocabulary != corpus.tokenizer.size:
            raise CheckpointError(f"its model has {model.vocabulary} tokens, the text {corpus.tokenizer.size}")
        if plan.batch * plan.window > corpus.training.tokens:
            raise CheckpointError("its batch is larger than the text")
        if plan.shards > plan.batch:
            raise CheckpointError(f"its batch has {plan.batch} rows in {plan.shards} parts")
        progress = Progress.from_json(about["progress"])
        weights = {f"weights.{name}": shape for name, shape in model.shapes().items()}
        checkpoint.check_tensors(tensors, weights, "weights.", np.float32)  # before a model of that size is made
        trainer = Trainer(corpus, recorded, model, plan, where, world)
        trainer.progress = progress
        trainer.restore(tensors)
        if warning and not world.rank:
            notes.append(warning)
            with storage(path):
                os.replace(run / checkpoint.PREVIOUS, path)  # before the next save makes the damaged one the previous
        return trainer, about["makings"]
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: incomplete: {error}") from None
