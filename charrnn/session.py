"""A run in the making: its trainer, the folder that it is saved to, and what is told of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import advice, checkpoint, machine, recipe
from charrnn.checkpoint import Run
from charrnn.config import FillingConfig, SamplingConfig
from charrnn.disk import storage, write_whole
from charrnn.errors import StorageError, UsageError
from charrnn.events import End, Evaluation, Notice, Sample, Saved, Start, Step
from charrnn.filling import fill
from charrnn.metrics import perplexity
from charrnn.sampling import generate
from charrnn.trainer import LOWER, RETREATS, Trainer


def mended(path: Path, content: bytes) -> None:
    """Write the file unless that is its content already. StorageError."""
    try:
        same = path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content  # no pipe, nothing without end
    except OSError:
        same = False
    if not same:
        write_whole(path, content)


LEAST = 0.1  # of a run's time, that must be left for another generation
GAP = "\x00"  # a sign that no text has


class Session:
    """A trainer and the folder that it is saved to, which rank 0 alone writes."""

    def __init__(self, trainer: Trainer, run: Path, threads: int) -> None:
        self.trainer, self.run, self.corpus, self.threads = trainer, run, trainer.corpus, threads
        self.world, self.leads = trainer.world, not trainer.world.rank
        self.better = False  # than the model on disk
        self.failed = ""  # why the last save failed
        self.saved = time.monotonic()
        self.budget = recipe.budget(trainer.config)
        self.paced = (trainer.progress.step, time.monotonic())  # the step and moment from which on the pace is measured
        part = self.corpus.training
        self.tokens_per_character = part.tokens / part.characters

    def makings(self) -> dict[str, str | int]:
        """What the bits from here on depend on, beside the settings."""
        return machine.makings(self.threads, self.trainer.multiplying(), self.trainer.device)

    def differences(self, makings: dict[str, Any]) -> list[str]:
        """What is not as it was when the state was written, in a sentence, where anything is."""
        other = [f"{name} {makings.get(name)}, here {value}" for name, value in self.makings().items() if makings.get(name) != value]
        return [f"the state was written with {'; '.join(other)}: from here on the bits may differ"] if other else []

    def mend(self) -> None:
        """The model and the metrics as the state has them: it may have been written just before its process was killed. StorageError."""
        if not self.leads:
            return
        if self.trainer.progress.best:
            mended(self.run / checkpoint.MODEL, self.model())
        mended(self.run / checkpoint.METRICS, self.metrics())
        if self.trainer.progress.done:
            self.drop_previous()

    def start(self, notes: tuple[str, ...], plan_lines: tuple[str, ...] = ()) -> Start:
        trainer, corpus, model, plan = self.trainer, self.corpus, self.trainer.model.config, self.trainer.plan
        return Start(
            step=trainer.progress.step, run=str(self.run), text=corpus.name, level=corpus.tokenizer.level,
            vocabulary=corpus.tokenizer.size, cell=model.cell, layers=model.layers, hidden=model.hidden, embedding=model.embedding,
            parameters=model.parameters(), training_tokens=corpus.training.tokens, validation_tokens=trainer.scored.tokens,
            steps=self.steps(), batch=plan.batch, window=plan.window, device=str(trainer.device), threads=self.threads,
            seconds=trainer.progress.seconds, notes=notes, bidirectional=model.bidirectional, plan=plan_lines,
            options=trainer.config.options(), curve=tuple(trainer.progress.curve))

    def per_character(self, nats: float) -> float:
        """Nats per token of the training part in nats per character."""
        return nats * self.tokens_per_character + self.corpus.unknown_nats_per_character

    def stepped(self, tokens: int, nats: float, seconds: float) -> Step:
        """A step event for the last `tokens`, which cost `nats` and took `seconds`."""
        trainer, step, steps = self.trainer, self.trainer.progress.step, self.steps()
        speed = tokens / max(seconds, 1e-9)
        per_step = trainer.plan.batch * trainer.batches.length / trainer.batches.steps_per_epoch
        return Step(
            step=step, steps=steps, epoch=step / trainer.batches.steps_per_epoch,
            training_nats_per_character=self.per_character(nats / tokens), learning_rate=trainer.learning_rate,
            gradient_norm=trainer.gradient_norm, dropout=trainer.dropped, characters_per_second=speed / self.tokens_per_character,
            seconds=trainer.progress.seconds,
            remaining=(trainer.progress.steps - step + self.later() * trainer.progress.length) * per_step / speed)

    def steps(self) -> int:
        """At which step the run ends, as last planned."""
        return self.trainer.progress.steps + self.to_come() * self.trainer.progress.length

    def to_come(self) -> int:
        """How many generations are planned after this one."""
        return max(self.trainer.plan.generations - self.trainer.progress.generation, 0)

    def later(self) -> float:
        """How many times as long as this generation those after it take together."""
        return self.to_come() * (recipe.STUDENT if self.trainer.teacher is None else 1.0)

    def evaluated(self, stop: Callable[[], bool]) -> Evaluation | Notice:
        """‖ Score the validation part; keep the model if it is the best so far. Where anything is not finite: go back. Halted."""
        trainer, progress = self.trainer, self.trainer.progress
        result, temperature = trainer.validate(stop)
        if not math.isfinite(result.nats) or not trainer.finite():
            if progress.step == progress.steps and not progress.best:
                progress.retreats = RETREATS  # nothing was learnt, and no step is left
            return self.retreated()
        training = self.per_character(progress.nats / progress.tokens) if progress.tokens else result.nats_per_character
        better = not progress.best or result.nats_per_character < progress.best["validation_nats_per_character"]
        lower = all(result.nats_per_character < earlier for *_, earlier in progress.own_curve())
        figures = {"training_nats_per_character": training, "validation_nats_per_character": result.nats_per_character,
                   "validation_bits_per_character": result.bits_per_character}
        progress.nats, progress.tokens = 0.0, 0
        progress.curve.append((progress.step, training, result.nats_per_character))
        progress.waited = 0 if lower else progress.waited + 1
        if better:
            progress.best = {"step": progress.step, **figures, "validation_nats_per_token": result.nats_per_token,
                             "temperature": temperature}
            trainer.keep()
            self.better = True
        return Evaluation(step=progress.step, best=better, seconds=progress.seconds, validation_perplexity=result.perplexity,
                          bidirectional=trainer.model.config.bidirectional, **figures)

    def retreated(self) -> Notice:
        """Go back to the best weights. TrainingError."""
        progress = self.trainer.progress
        self.trainer.retreat()
        place = f"the best weights, of step {progress.best['step']:,}," if progress.best else "the first weights"
        return Notice(step=progress.step, text=f"losses, gradients or weights are no longer numbers: back to {place} and on at "
                                               f"{LOWER**progress.retreats:.2g} times the learning rate")

    def keep_time(self, offset: float) -> None:
        """‖ Where time is what was given: plan the rest of the run again if the machine's pace has changed, so that it ends in time.
        Called after an evaluation; the run's seconds are time.monotonic() + offset."""
        progress, now = self.trainer.progress, time.monotonic()
        evaluating = now + offset - progress.seconds
        (step, since), self.paced = self.paced, (progress.step, now)
        if self.budget is None or step == progress.step:  # the evaluation was left over from the session before
            return
        per_step = (now - since - evaluating) / (progress.step - step)
        every, steps = self.trainer.plan.evaluate_every, progress.steps
        per_step += evaluating / every  # each stretch of steps brings its evaluation
        later = self.later()
        expected = now + offset + (steps - progress.step + later * progress.length) * per_step
        if abs(expected - self.budget) > 0.03 * self.budget:
            done, possible = progress.step - progress.born, (self.budget - now - offset) / per_step
            steps = max(progress.step + 1, progress.born + int((done + possible) / (1 + later)))
            most = recipe.most_steps(self.corpus.training.tokens, self.trainer.plan.batch, self.trainer.plan.window)
            steps = min(steps, progress.born + max(most, self.trainer.plan.steps))
        if (steps := self.world.shared(steps)) != progress.steps:
            progress.plan_again(steps)

    def again(self, offset: float) -> Notice | None:
        """‖ Begin the next generation, where one is planned and there is a model to learn from and time; the run's seconds are
        time.monotonic() + offset."""
        trainer, progress = self.trainer, self.trainer.progress
        left = 1.0 if self.budget is None else self.world.shared(self.budget - time.monotonic() - offset) / self.budget
        if not self.to_come() or not progress.best or left < LEAST:
            return None
        trainer.again()
        self.paced = (progress.step, time.monotonic())
        return Notice(step=progress.step, text=f"generation {progress.generation} of {trainer.plan.generations}: a fresh model begins, "
                                               "which learns from what the best one so far predicts too")

    def run_with(self, weights: dict[str, NDArray[np.float32]]) -> Run:
        """A model of these weights, as a run with the best figures so far."""
        corpus, trainer, best = self.corpus, self.trainer, self.trainer.progress.best
        text = {"name": corpus.name, "digest": corpus.digest, "characters": corpus.characters, "held_out": corpus.held_out,
                "training_tokens": corpus.training.tokens, "training_characters": corpus.training.characters,
                "validation_tokens": corpus.validation.tokens, "validation_characters": corpus.validation.characters}
        curve = [point for point in trainer.progress.curve if point[0] <= best.get("step", 0)]
        return Run(self.run, trainer.model.config, trainer.config, corpus.tokenizer, weights, corpus.unigram,
                   (corpus.fingerprint.hashes, corpus.fingerprint.below), text, {**best, "curve": curve, "plan": trainer.plan.as_json()})

    def model(self) -> bytes:
        """The content of the model file: the best model so far, its logits divided by the temperature that suits it."""
        return checkpoint.sealed(*checkpoint.model_tensors(self.run_with(self.trainer.calibrated())))

    def metrics(self) -> bytes:
        """The content of metrics.jsonl."""
        names = ("step", "training_nats_per_character", "validation_nats_per_character")
        return "".join(json.dumps(dict(zip(names, point))) + "\n" for point in self.trainer.progress.curve).encode()

    def save(self, last: bool) -> Iterator[Saved | Notice]:
        """‖ Write the exact state, and after it what can be made from it: the best model and the metrics. What fails is told and tried
        again later; StorageError where this is the `last` save. A state that is not finite is not written."""
        trainer, progress = self.trainer, self.trainer.progress
        self.saved = time.monotonic()
        if trainer.drifted():
            yield Notice(step=progress.step, text="the processes' weights differed, as where processors round differently: all go on with "
                                                  "those of rank 0")
        if not trainer.finite():
            yield Notice(step=progress.step, text="weights or moments are no longer numbers: they are not saved")
            return
        tensors = trainer.tensors()
        if not self.leads:
            return
        about = {"kind": "resume", "model": trainer.model.config.as_json(), "training": trainer.config.as_json(),
                 "plan": trainer.plan.as_json(), "text": self.corpus.digest, "tokenizer": self.corpus.tokenizer.digest,
                 "progress": dataclasses.asdict(progress), "makings": self.makings()}
        paths = [self.run / name for name in (checkpoint.MODEL, checkpoint.RESUME, checkpoint.PREVIOUS, checkpoint.METRICS)]
        model, resume, previous, metrics = paths
        try:
            checkpoint.write(resume, tensors, about, previous)
            if self.better:
                write_whole(model, self.model())
            write_whole(metrics, self.metrics())
            if progress.done:
                self.drop_previous()
        except StorageError as error:
            if last:
                raise StorageError(f"{error}; --resume goes on from the last state that could be saved") from None
            if self.failed != str(error):
                yield Notice(step=progress.step, text=f"not saved, tried again later: {error}")
            self.failed = str(error)
            return
        self.failed, written, self.better = "", [model, resume] if self.better else [resume], False
        yield from (Saved(step=progress.step, path=str(path)) for path in written)

    def drop_previous(self) -> None:
        """A run that is done needs its last state only. StorageError."""
        with storage(self.run / checkpoint.PREVIOUS):
            (self.run / checkpoint.PREVIOUS).unlink(missing_ok=True)

    def sample(self, length: int = 240) -> Sample:
        """A piece of what the model writes now, or of the held-out text with words that it fills in, in brackets; it takes nothing from the
        training's own random numbers."""
        step, run = self.trainer.progress.step, self.run_with(self.trainer.model.weights())
        if run.config.bidirectional:
            text = self.filled(run, length)
        else:
            text = "".join(piece.text for piece in generate(run, SamplingConfig(length=length, seed=step)))
        with contextlib.suppress(StorageError):  # what is lost can be missed
            self.record(step, text)
        return Sample(step=step, text=text)

    def filled(self, run: Run, length: int) -> str:
        """The first `length` tokens that were held out, some words of them in brackets: what the model puts there."""
        part = self.trainer.scored
        text = run.tokenizer.decode(part.store.read(0, min(length, part.tokens)).astype(np.int64)).replace(GAP, " ")
        words = list(re.finditer(r"(?<=\s)\w{2,8}(?=\s)", text))[2::4][:3] or list(re.finditer(".", text))[len(text) // 2 :][:1]
        told = "".join(GAP if any(word.start() <= at < word.end() for word in words) else letter for at, letter in enumerate(text))
        try:
            pieces = list(fill(run, told, FillingConfig(gap=GAP, count=1, width=16))[0].pieces)
        except UsageError:  # at word level a lone gap may be a part of a word
            return text
        pieces[1::2] = [f"[{one}]" for one in pieces[1::2]]
        return "".join(pieces)

    def record(self, step: int, text: str) -> None:
        """Keep a sample on file, after those of earlier steps. StorageError."""
        rows = [row for row in checkpoint.recorded(self.run) if row["step"] < step] + [{"step": step, "text": text}]
        write_whole(self.run / checkpoint.SAMPLES, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def end(self) -> End:
        """What was reached, and what an expert would say of it."""
        trainer, progress = self.trainer, self.trainer.progress
        read = progress.step * trainer.plan.batch * trainer.batches.length / trainer.batches.steps_per_epoch
        figures = {name: progress.best.get(name, math.nan) for name in (
            "training_nats_per_character", "validation_nats_per_character", "validation_bits_per_character")}
        used_up = recipe.used_up(trainer.config, trainer.model.config, trainer.plan, self.corpus.training.tokens, progress.length)
        outlook, said = advice.read_curve(progress.own_curve(), unigram=self.corpus.unigram_nats_per_character,
                                          held_out=self.corpus.held_out, done=progress.done, used_up=used_up,
                                          taught=trainer.teacher is not None)
        return End(
            step=progress.step, reason=progress.done or "interrupted", run=str(self.run), steps=progress.step,
            best_step=progress.best.get("step", 0), seconds=progress.seconds, parameters=trainer.model.config.parameters(),
            characters_per_second=read / self.tokens_per_character / max(progress.seconds, 1e-9), **figures,
            validation_perplexity=perplexity(progress.best.get("validation_nats_per_token", math.nan)),
            outlook=outlook, advice=(said,) if said else (), bidirectional=trainer.model.config.bidirectional)
