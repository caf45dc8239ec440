"""The plan of a new run: the recipe's rules, and the speed of this machine where time is what is given."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from charrnn import kernels, machine, reasons, recipe
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus import Corpus
from charrnn.evaluation import Held, scores
from charrnn.reasons import Choice, Outlook
from charrnn.recipe import Plan
from charrnn.trainer import SCORED, Trainer, multiplies_bfloat16
from charrnn.world import World

PROBE = 1.0  # seconds that measuring the speed may take


def measure(trainer: Trainer, choices: Iterable[int], limit: float) -> tuple[int, float, float]:
    """‖ The fastest of the numbers of threads to choose from, and the seconds that a step and an evaluation take with it; `trainer` is
    used up. Another busy process on the machine can make one thread the faster way."""
    threads, per_step = min(((count, pace(trainer, count, limit)) for count in choices), key=lambda found: found[1])
    kernels.use_threads(threads)
    tokens = trainer.scored.store
    part = min(tokens.count, 1 << 15)
    began = time.perf_counter()
    scores(trainer.model, Held(tokens.read(0, part)), trainer.temperatures)
    return threads, per_step, (time.perf_counter() - began) * tokens.count / part


def pace(trainer: Trainer, threads: int, limit: float) -> float:
    """‖ The seconds that a step takes, measured for about `limit` seconds by rank 0's clock."""
    kernels.use_threads(threads)
    times: list[float] = []
    end = time.monotonic() + limit
    trainer.say = lambda: (time.monotonic() < end,)
    while len(times) < 4 or (trainer.heard[0][0] and len(times) < 200):
        began = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


@dataclass(frozen=True)
class Planned:
    """A run as it would be made: its shape and its numbers with their reasons; what it takes, where that was measured."""

    model: ModelConfig
    plan: Plan
    choices: tuple[Choice, ...]
    outlook: Outlook | None

    def as_json(self) -> dict[str, Any]:
        """The choices by name, the expected seconds and bytes, and the reason of each choice."""
        ahead = {} if self.outlook is None else self.outlook.as_json()
        return {**{choice.name: choice.value for choice in self.choices}, **ahead,
                "reasons": {choice.name: choice.reason for choice in self.choices}}


def planned(corpus: Corpus, config: TrainingConfig, where: torch.device, *, began: float, measuring: bool = False,
            world: World | None = None) -> Planned:
    """‖ The plan for a new run; the speed is measured where time is what is given, or if `measuring`. `began`: when the run did."""
    world, tokens = world or World(), corpus.training.tokens
    vocabulary, timed = corpus.tokenizer.size, recipe.budget(config) is not None
    model = recipe.shape(config, tokens, vocabulary)
    cores = config.threads or world.cores()
    able = all(one for one, in world.agree(multiplies_bfloat16(where, model)))
    rows, window = recipe.rows_and_window(config, tokens)
    known: dict[str, Any] = {"scored": min(corpus.validation.tokens, SCORED), "held_out": corpus.held_out,
                             "precision": recipe.precision(config, able), "processes": world.size,
                             "threads": config.threads or recipe.threads(model, -(-rows // world.size), window, cores)}
    ahead = None

    def look(choices: Sequence[int], speed: float = 1.0) -> tuple[float, Plan, Outlook]:
        """‖ The seconds that a step of the model takes, and its plan at this speed. What a plan for a machine of the given `speed` drops is
        dropped while measuring too, as drawing it takes time."""
        expected = recipe.REFERENCE * model.parameters() * rows * window / speed
        trainer = Trainer(corpus, config, model, recipe.plan(config, model, tokens, seconds_per_step=expected, **known), where, world)
        known["threads"], *found = world.shared([*measure(trainer, choices, PROBE / len(choices)), time.monotonic() - began])
        timing: dict[str, Any] = dict(zip(("seconds_per_step", "seconds_per_evaluation", "spent"), found))
        plan = recipe.plan(config, model, tokens, **timing, **known)
        return timing["seconds_per_step"], plan, reasons.outlook(model, plan, **timing)

    if not timed and not measuring:
        plan = recipe.plan(config, model, tokens, seconds_per_step=1.0, **known)
    else:
        per_step, plan, ahead = look(world.shared(sorted({cores, 1} if timed and not config.threads else {known["threads"]})))
        speed = recipe.speed(model, rows * window, per_step)
        wanted = recipe.shape(config, tokens, vocabulary, speed) if timed else model
        if wanted != model:
            model = wanted
            _, plan, ahead = look([known["threads"]], speed)
    return Planned(model, plan, reasons.choices(config, model, plan, tokens, held_out=corpus.held_out), ahead)


def dry(corpus: Corpus, config: TrainingConfig) -> dict[str, Any]:
    """What training would do with a new run, its speed measured; nothing is written. UsageError."""
    found = planned(corpus, config, machine.device(config.device), began=time.monotonic(), measuring=True)
    return {"text": corpus.name, "level": corpus.tokenizer.level, "vocabulary": corpus.tokenizer.size,
            "training_tokens": corpus.training.tokens, "validation_tokens": corpus.validation.tokens, **found.as_json()}
