"""Why a run is planned as it is: each choice with the rule of `recipe` that made it, and what the whole will take. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from charrnn import recipe
from charrnn.batches import fit
from charrnn.cells import GATES
from charrnn.config import Config, ModelConfig, TrainingConfig, option_name, setting
from charrnn.metrics import CHUNK, ROWS
from charrnn.recipe import Plan
from charrnn.visible import count, duration, size

PROCESS = 320e6  # bytes of Python and torch before a model is made
COPIES = 36  # bytes a parameter: weights, gradients, moments, the best model, and the copies that are written
TEACHER = 12  # and more where there is a teacher


@dataclass(frozen=True)
class Choice:
    """One number of a run, and why it is that one."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outlook(Config):
    """What a run will take on this machine, as it was measured: seconds in all, a step, an evaluation; bytes of memory."""

    seconds: float = setting(0.0, "")
    seconds_per_step: float = setting(0.0, "")
    seconds_per_evaluation: float = setting(0.0, "")
    memory: int = setting(0, "")


def memory(model: ModelConfig, plan: Plan) -> int:
    """Bytes that training holds at most: the process, all that grows with the weights, what a window leaves for the way back, and what
    is held while the validation part is scored."""
    tokens = plan.batch * plan.window + ROWS * CHUNK
    kept = model.layers * len(model.towers) * (GATES[model.cell] + 2) * model.hidden + model.hidden
    copies = COPIES + (TEACHER if plan.generations > 1 else 0)
    return round(PROCESS + copies * model.parameters() + 4 * tokens * kept + min(4 * tokens * model.vocabulary, 16 << 20))


def outlook(model: ModelConfig, plan: Plan, *, seconds_per_step: float, seconds_per_evaluation: float, spent: float = 0.0) -> Outlook:
    """What a plan takes at these speeds, `spent` seconds having passed."""
    evaluations = plan.generations * -(-plan.steps // plan.evaluate_every)
    steps = plan.steps * (1 + recipe.STUDENT * (plan.generations - 1))
    return Outlook(seconds=spent + steps * seconds_per_step + evaluations * seconds_per_evaluation, memory=memory(model, plan),
                   seconds_per_step=seconds_per_step, seconds_per_evaluation=seconds_per_evaluation)


def choices(config: TrainingConfig, model: ModelConfig, plan: Plan, tokens: int, *, held_out: bool = True) -> tuple[Choice, ...]:
    """The choices in the order in which they were made, for a training part of so many tokens."""
    given = {name for name, value in config.as_json().items() if value not in (None, getattr(TrainingConfig(), name))}
    epochs = plan.steps / (-(-(tokens // plan.batch) // plan.window))
    per_token = model.parameters() / tokens
    found = [
        ("cell", model.cell, "the default"),
        ("layers", model.layers, "more of them pay only in longer runs"),
        ("hidden", model.hidden, _hidden(config, model.hidden, tokens)),
        ("embedding", model.embedding, _embedding(model)),
        ("batch", plan.batch, _batch(tokens, plan)),
        ("window", plan.window, "the text is no longer" if plan.window == tokens else
         "long enough for a sentence, short enough for many updates"),
        ("lr", plan.lr, f"AdamW's peak, on embedding, output layer and biases: what {model.cell} bears at this width"),
        ("matrix_lr", plan.matrix_lr, f"Muon's peak, on the matrices: {recipe.MATRIX_LR:g} times as much"),
        ("dropout", plan.dropout, _dropout(plan, epochs, per_token, held_out)),
        ("weight_drop", plan.weight_drop, "lets many passes go on teaching" if plan.weight_drop else "for texts that are read many times"),
        ("parameters", model.parameters(), f"{_short(per_token)} for each of the {_short(tokens)} tokens to learn from"),
        ("steps", plan.steps, _steps(config, plan, tokens, epochs)),
        ("generations", plan.generations, "the time is enough for one model" if plan.generations == 1 else
         "the second, a fresh model, learns from what the first one predicts, too"),
        ("evaluate_every", plan.evaluate_every,
         f"{-(-plan.steps // plan.evaluate_every)} evaluations are enough to find the best model, and take little"),
        ("threads", plan.threads, "a second one is not there, or costs more than it saves" if plan.threads == 1 else
         "each has enough to do in a step"),
        ("precision", plan.precision, "the processor multiplies it faster than float32" if plan.precision == "bfloat16" else
         "the processor multiplies nothing faster than that"),
    ]
    return tuple(Choice(name, value, f"given by {option_name(name)}" if name in given - {"steps"} else reason)
                 for name, value, reason in found)


def _hidden(config: TrainingConfig, hidden: int, tokens: int) -> str:
    time = recipe.budget(config) or recipe.DEFAULT_SECONDS
    feeds = recipe.hidden(tokens, recipe.WITHOUT_END)
    if hidden == recipe.hidden(1, 1e-9):
        return f"the fewest that are planned: {_short(tokens)} tokens and {duration(time)} are little"
    if feeds <= hidden:
        return f"as many as {_short(tokens)} tokens feed without being learnt by heart"
    here = " at this machine's speed" if recipe.budget(config) else ""
    return f"as many as can read enough in {duration(time)}{here}; the text would feed {feeds:,}"


def _embedding(model: ModelConfig) -> str:
    if not model.embedding:
        return f"one-hot, which is enough for {model.vocabulary:,} symbols"
    share = model.hidden / model.embedding
    return f"1/{share:.2g} of the width, for {model.vocabulary:,} symbols" if share > 1 else f"for {model.vocabulary:,} symbols"


def _batch(tokens: int, plan: Plan) -> str:
    wanted = recipe.batch(tokens)
    if fit(tokens, wanted, plan.window)[0] < wanted:
        return "all rows that the text fills"
    return f"rows for a text of {_short(tokens)} tokens: few give many updates, many give steady ones"


def _dropout(plan: Plan, epochs: float, per_token: float, held_out: bool) -> str:
    if not held_out:
        return "nothing is held out: the text is there to be learnt by heart"
    read = f"the text is read {_short(epochs)} times"
    if per_token > 1:
        return f"{read}, by a model with {_short(per_token)} weights a token"
    return read if plan.dropout else f"{read}: too seldom to be learnt by heart"


def _steps(config: TrainingConfig, plan: Plan, tokens: int, epochs: float) -> str:
    passes = f"{_short(epochs)} passes over the text"
    if config.steps is not None:
        return f"given by --steps: {passes}"
    if config.epochs is not None:
        return f"given by --epochs: {passes}"
    if plan.steps == recipe.most_steps(tokens, plan.batch, plan.window):
        return f"{passes}: more would teach it nothing new"
    return f"what {config.time or '3m'} allow at the speed measured here: {passes}"


def short(made: tuple[Choice, ...], ahead: Outlook | None = None) -> tuple[str, ...]:
    """A plan in two lines, for the start of a run; with a third for what it takes, where that was measured."""
    by = {choice.name: choice for choice in made}
    lines: tuple[str, ...] = (
        f"batch {by['batch'].value} x window {by['window'].value}, rates {by['lr'].value:.2g} (AdamW) and {by['matrix_lr'].value:.2g} "
        f"(Muon), dropout {by['dropout'].value:g}, of recurrent weights {by['weight_drop'].value:g}: {by['dropout'].reason}",
        f"hidden {by['hidden'].value}: {by['hidden'].reason}; steps {by['steps'].value:,}: {by['steps'].reason}")
    if by["generations"].value > 1:
        lines = (*lines, f"generations {by['generations'].value}, of so many steps each: {by['generations'].reason}")
    return lines if ahead is None else (*lines, f"expected: {duration(ahead.seconds)}, {size(ahead.memory)} of memory")


def _short(number: float) -> str:
    """Two digits of a small number; thousands as people write them."""
    return f"{number:.2g}" if number < 100 else count(number)
