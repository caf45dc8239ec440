"""What a run uses where its user named nothing: pure functions of the text, the time and the cell, with their reasons."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from charrnn.batches import fit
from charrnn.config import PRECISIONS, Config, ModelConfig, TrainingConfig, seconds, setting
from charrnn.errors import UsageError

DEFAULT_SECONDS = 180.0
WITHOUT_END = 1e9  # more seconds, tokens or speed than any rule asks for


def budget(config: TrainingConfig) -> float | None:
    """The time to train for, in seconds; None where the user counts steps or epochs."""
    if config.steps is not None or config.epochs is not None:
        return None
    return DEFAULT_SECONDS if config.time is None else seconds(config.time)


REFERENCE = 30e-12  # seconds that a token takes with each weight on a machine of speed 1


def speed(model: ModelConfig, tokens: int, seconds: float) -> float:
    """How many times as fast as REFERENCE a machine is that takes so many seconds for a step of so many tokens. One that is slower by far
    is taken to be busy with other things just now."""
    return max(REFERENCE * model.parameters() * tokens / seconds, 0.25)


def hidden(tokens: int, time: float, speed: float = 1.0) -> int:
    """Wider with more time and on a faster machine, as a model pays for its size in tokens read; not so wide that it learns a small text
    by heart."""
    by_time = 384 * (time * speed / DEFAULT_SECONDS) ** 0.35
    by_text = 7 * tokens ** (1 / 3)
    return int(max(64, min(1024, 32 * round(min(by_time, by_text) / 32))))


def embedding(vocabulary: int, hidden: int) -> int:
    """One-hot for a handful of symbols; else a quarter of the width (its product is a table, so it costs nothing); more for many tokens."""
    if vocabulary <= 32:
        return 0
    return max(16, hidden // 4) if vocabulary <= 512 else hidden // 2


def batch(tokens: int) -> int:
    """Few rows for a small text, so that it gets many updates; no more than 32 for a large one: on two cores 128 of them read half as
    much again in three minutes, and learnt less of 100 MB."""
    return 8 if tokens < 60_000 else 16 if tokens < 300_000 else 32


EVENING = 0.95  # what a step leaves of the mean squares by which Muon's steps are evened
MATRIX_LR = 2.5  # times the learning rate: Muon's steps on the matrices, whose size is the same whatever the gradient's


def lr(cell: str, hidden: int) -> float:
    """Peak learning rate of AdamW: gates bear a high one; a plain recurrence amplifies each step's error. Lower for wider models."""
    at_256 = {"lstm": 2e-2, "gru": 1e-2, "rnn": 3e-3, "mlp": 1e-2}[cell]
    return at_256 * min(1.0, math.sqrt(256 / hidden))


def most_steps(tokens: int, rows: int, window: int) -> int:
    """Past some 40 passes a text teaches nothing new; a tiny one needs a few hundred updates all the same."""
    return max(40 * (tokens // rows) // window, 300)


def threads(model: ModelConfig, rows: int, window: int, cores: int) -> int:
    """Every core, but one for a step so small that waking a second costs more than it saves."""
    return cores if 6 * model.parameters() * rows * window > 50e6 else 1


def precision(config: TrainingConfig, bfloat16: bool) -> str:
    """bfloat16 where the processor multiplies it. UsageError where it was asked for and there is none."""
    if config.precision == "bfloat16" and not bfloat16:
        raise UsageError("--precision bfloat16: needs a processor that multiplies it and the compiled kernels, or a GPU that does and a "
                         "cell that cuDNN has; use --precision auto")
    return "bfloat16" if bfloat16 and config.precision != "float32" else "float32"


def dropout(epochs: float, weights_per_token: float, cell: str = "lstm") -> float:
    """None while the text is new; a tenth more each time that it is read twice as often, or that the model is twice as large beside a
    text with fewer tokens than it has weights. Up to 0.4; up to 0.6 for a text so small that there are six weights a token and more.
    A plain recurrence, which learns less by heart, gets 0.3 less."""
    wanted = 0.1 * math.log2(max(epochs, 1.0)) - (0.4 if cell == "rnn" else 0.1) + 0.1 * math.log2(max(weights_per_token, 1.0))
    most = min(0.4 + 0.12 * math.log2(max(weights_per_token / 6, 1.0)), 0.6)
    return round(min(max(wanted, 0.0), most), 3)


EASING, SPARED = 30.0, 0.04  # how fast dropout gives way, and what the text learnt from may cost more without that


def eased(dropout: float, curve: Sequence[tuple[int, float, float]], births: Collection[int], length: int, easing: float = EASING) -> float:
    """What is left of the dropout after evaluations (step, training, validation; nats per character) of generations of `length` steps that
    began at `births`: less, the more the text costs with what is dropped than the held-out one does without. A model so far from
    learning by heart only learns more slowly for it, as where a text says the same again and again. Never less than a twentieth, so
    that it can soon be more again; never more than planned."""
    costs = 0.0
    for (start, _, before), (step, training, after) in itertools.pairwise(curve):
        if start not in births:  # training is the mean over these steps, so beside it stands the mean of both ends
            more = 2 * training / max(before + after, 1e-9) - 1
            costs = min(costs + (step - start) / length * (more - SPARED), 3 / easing)
    return round(dropout * math.exp(-easing * max(costs, 0.0)), 6)


STUDENT = 1.25  # what a step of a model that is taught by another one takes, in steps of one that is not


def generations(possible: int, most: int) -> int:
    """How many models to train one after the other, the first teaching the second, where so many steps are possible and `most` make sense
    for one: two where each gets half of these, which is when it begins to gain. A third gained nothing."""
    return 2 if possible >= most / 2 * (1 + STUDENT) else 1


def weight_drop(epochs: float, weights_per_token: float, cell: str = "lstm") -> float:
    """None up to twelve passes, where it only slows the learning; with more of them it is what lets them go on teaching, the more so the
    larger the model is beside the text. A third of it for a plain recurrence."""
    by_size = (1 / 3 if cell == "rnn" else 1.0) * (0.1 + 0.05 * math.log2(max(weights_per_token, 1.0)))
    return round(min(max(by_size * math.log2(max(epochs, 1.0) / 12), 0.0), 0.3), 3)


@dataclass(frozen=True, kw_only=True)
class Plan(Config):
    """The numbers a run is made with. Recorded in it: a resumed run follows the record."""

    steps: int = setting(1, "", low=1)
    batch: int = setting(1, "", low=1)
    window: int = setting(1, "", low=1)
    lr: float = setting(1e-2, "", above=0)
    matrix_lr: float = setting(5e-2, "", above=0)
    dropout: float = setting(0.0, "", low=0, high=0.95)
    weight_drop: float = setting(0.0, "", low=0, high=0.95, later=True)
    evaluate_every: int = setting(1, "", low=1)
    threads: int = setting(1, "", low=1)
    precision: str = setting("float32", "", choices=PRECISIONS, later=True)
    shards: int = setting(1, "", low=1, high=65536, later=True)
    easing: float = setting(0.0, "", low=0, high=100, later=True)  # how fast dropout gives way, as `eased` takes it
    generations: int = setting(1, "", low=1, high=100, later=True)  # of `steps` each
    student_dropout: float = setting(0.0, "", low=0, high=0.95, later=True)  # from the second generation on
    student_weight_drop: float = setting(0.0, "", low=0, high=0.95, later=True)
    evening: float = setting(0.0, "", low=0, high=0.9999, later=True)  # of Muon's steps, as optim.Optimizer takes it


def shape(config: TrainingConfig, tokens: int, vocabulary: int, speed: float = 1.0) -> ModelConfig:
    """The model for a training part of so many tokens, on a machine of that speed."""
    width = config.hidden or hidden(tokens, budget(config) or DEFAULT_SECONDS, speed)
    model = ModelConfig(
        cell=config.cell, layers=config.layers or 1, hidden=width, vocabulary=vocabulary,
        embedding=embedding(vocabulary, width) if config.embedding is None else config.embedding,
        activation=config.activation, gru_reset=config.gru_reset)
    if not config.bidirectional:
        return model
    both = dataclasses.replace(model, bidirectional=True)
    return both if config.hidden else of_size(both, model.parameters(), config.embedding)


def of_size(model: ModelConfig, parameters: int, table: int | None = None) -> ModelConfig:
    """The same kind of model at the width whose parameters come nearest to so many; `table`: its embedding, else by the width."""
    def at(width: int) -> ModelConfig:
        return dataclasses.replace(model, hidden=width, embedding=embedding(model.vocabulary, width) if table is None else table)

    low = bisect.bisect_left(range(1, 4096), parameters, key=lambda width: at(width).parameters())
    return min((at(max(low, 1)), at(low + 1)), key=lambda found: abs(found.parameters() - parameters))


def rows_and_window(config: TrainingConfig, tokens: int) -> tuple[int, int]:
    """(B, T), shrunk to what the text fills."""
    return fit(tokens, config.batch or batch(tokens), config.window or 64)


def plan(config: TrainingConfig, model: ModelConfig, tokens: int, *, scored: int = 1, held_out: bool = True, seconds_per_step: float = 0.0,
         seconds_per_evaluation: float = 0.0, spent: float = 0.0, threads: int = 1, precision: str = "float32",
         processes: int = 1) -> Plan:
    """The plan for a training part of so many tokens, of which `scored` more are evaluated now and then; the speeds and the seconds
    spent so far matter only where time is what is given.

    Where nothing is held out the text is there to be learnt by heart: no dropout.
    """
    rows, window = rows_and_window(config, tokens)
    born = config.generations or 1
    per_epoch = -(-(tokens // rows) // window)
    time = budget(config)
    if time is not None:
        evaluations = max(1, min(25, int(0.08 * time / max(seconds_per_evaluation, 1e-9))))
        spare = min(seconds_per_evaluation, 0.01 * time)  # for what is not foreseen
        training = max(time - spent - evaluations * seconds_per_evaluation - spare, 0.1 * time)
        possible, most = int(training / max(seconds_per_step, 1e-9)), most_steps(tokens, rows, window)
        if config.generations is None and held_out and not config.bidirectional:
            born = generations(possible, most)
        possible -= int((born - 1) * evaluations * seconds_per_evaluation / max(seconds_per_step, 1e-9))
        steps = max(1, min(int(possible / (1 + STUDENT * (born - 1))), most))
    else:
        steps = config.steps or max(1, round((config.epochs or 0) * per_epoch))
        evaluations = max(1, min(25, steps * rows * window // scored))  # never more reading to score than to learn
    epochs, per_token = steps / per_epoch, model.parameters() / tokens
    dropped = config.dropout if config.dropout is not None else dropout(epochs, per_token, model.cell) if held_out else 0.0
    thinned = config.weight_drop if config.weight_drop is not None else weight_drop(epochs, per_token, model.cell) if dropped else 0.0
    if model.cell == "mlp":
        thinned = 0.0
    rate = config.lr or lr(model.cell, model.hidden)
    return Plan(
        steps=steps, batch=rows, window=window, lr=rate, matrix_lr=MATRIX_LR * rate,
        dropout=dropped, easing=EASING if dropped and config.dropout is None else 0.0, weight_drop=thinned,
        student_dropout=dropped if config.dropout is not None else round(max(dropped - 0.1, 0.0), 3),
        student_weight_drop=thinned if config.weight_drop is not None else round(thinned / 2, 3),
        evaluate_every=-(-steps // evaluations), threads=threads, precision=precision,
        shards=min(config.shards or processes, rows), generations=born, evening=EVENING)


def used_up(config: TrainingConfig, model: ModelConfig, plan: Plan, tokens: int, steps: int) -> bool:
    """Whether a run that was given a time made all the passes that teach anything, as often as it pays, and no longer time would plan a
    wider model."""
    most = most_steps(tokens, plan.batch, plan.window)
    born = config.generations or (1 if config.bidirectional else generations(int(WITHOUT_END), most))
    if budget(config) is None or plan.generations < born or steps < most:
        return False
    return shape(config, tokens, model.vocabulary, WITHOUT_END) == model
