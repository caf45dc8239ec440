"""The model and everything that changes with it from step to step."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn import checkpoint, machine, optim, recipe
from charrnn.batches import Batches, Window
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.corpus import Corpus, Part, Store
from charrnn.errors import CheckpointError, TrainingError
from charrnn.evaluation import scores
from charrnn.kernels import bfloat16, cudnn
from charrnn.metrics import Score
from charrnn.model import Masks, Model, State
from charrnn.progress import Progress
from charrnn.recipe import Plan
from charrnn.tokenizer import Tokenizer
from charrnn.update import Learning, Losses, Replaying, Rows
from charrnn.world import Halted, World, bounds

# Tokens right of a window that a backward tower reads first, so that it comes to the window with a state. On The Time Machine 0, 16, 32, 64
# of them gave 0.773, 0.770, 0.770, 0.773 pseudo-nats for 7.2, 7.7, 7.9, 9.0 s: a few are enough, as truncation asks.
AHEAD = 16
# Updates in a row that are skipped before the run goes back to its best weights, with fresh moments: both are in its state anyway. Weights,
# moments and recurrent state of the last evaluation would make that two thirds larger, and gained 0.0004 nats where seeds differ by 0.002
# (The Time Machine, lstm 96, a NaN at step 130, 250 or 350 of 500).
SKIPPED = 5
RETREATS, LOWER = 2, 0.3  # how often it goes back, and what it multiplies its learning rates with each time
# One that trains with dropout or overfits is too sure of itself: by 1.1 for The Time Machine, by 1.2 for words that it learns by heart.
TEMPERATURES = (0.9, 0.95, 1.0, 1.03, 1.06, 1.09, 1.12, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5)
GENERATORS = {"generator", "generator.cuda", "generator.mps"}
SCORED = 1_000_000  # tokens of the validation part that are scored while training
STRETCH = 10_000  # tokens that are decoded at once
STATES = ("state", "lesson")  # the recurrent states of the model and of its teacher, as their tensors are named


def multiplies_bfloat16(device: torch.device, model: ModelConfig) -> bool:
    """Whether training on this device can round what it multiplies to bfloat16: by charrnn's own kernels, or by cuDNN's, which do not know
    every cell."""
    if device.type == "cpu":
        return bool(bfloat16())
    return machine.has_bfloat16(device) and cudnn.serves(model.cell, model.activation, model.gru_reset)


def first(part: Part, count: int, tokenizer: Tokenizer) -> Part:
    """The first `count` tokens of a part; the part itself where it is no longer."""
    if part.tokens <= count:
        return part
    tokens, decoder = part.store.read(0, count), tokenizer.decoder()
    characters = size = 0
    for place in range(0, count + STRETCH, STRETCH):  # the whole as Python's integers and strings would take more memory than training
        text = "".join(map(decoder.feed, tokens[place : place + STRETCH].tolist())) if place < count else decoder.flush()
        characters, size = characters + len(text), size + len(text.encode())
    unknown = 0 if tokenizer.escape is None else int((tokens == tokenizer.escape).sum())
    return Part(Store.of(tokens), count, characters, size, unknown)


def drawable(state: NDArray[Any]) -> bool:
    """Whether a Mersenne Twister, as torch writes its state, draws from its own 624 words: torch checks where the next one is and how many
    are left, but not that these lie within."""
    return len(state) >= 24 and int(state[8:12].view(np.int32)[0]) + int(state[16:20].view(np.uint32)[0]) <= 625


class Watched:
    """A store whose reader is halted once `stop` says yes."""

    def __init__(self, store: Store, stop: Callable[[], bool]) -> None:
        self.store, self.stop, self.count = store, stop, store.count

    def read(self, start: int, stop: int) -> NDArray[Any]:
        if self.stop():
            raise Halted
        return self.store.read(start, stop)


def joint(states: Sequence[State]) -> State:
    """The rows of several states, one after the other."""
    return states[0] if len(states) == 1 else tuple(tuple(map(torch.cat, zip(*layer))) for layer in zip(*states))


class Trainer:
    """The model and everything that changes with it from step to step.

    The rows of a batch are divided into plan.shards, whose gradients are made one by one and added up in their order, wherever each was
    made: so the result is the same to the bit for any number of processes. (The idea is EasyScale's, Li et al. 2023.) Each process of the
    `world` has some of the shards, and of the recurrent state their rows; all else is the same in all of them.
    """

    def __init__(self, corpus: Corpus, config: TrainingConfig, model: ModelConfig, plan: Plan, device: torch.device,
                 world: World | None = None) -> None:
        self.corpus, self.config, self.plan, self.device, self.world = corpus, config, plan, device, world or World()
        able = all(one for one, in self.world.agree(multiplies_bfloat16(device, model)))
        self.precision = plan.precision if able else "float32"
        self.model = Model(model, torch.Generator().manual_seed(config.seed)).to(device)
        self.teacher: Model | None = None
        self.learning = self.learner()
        self.optimizer = optim.Optimizer(self.model, plan.lr, plan.matrix_lr, precision=self.precision, evening=plan.evening)
        self.generator = torch.Generator(device).manual_seed(config.seed + 1)
        self.drawing = "generator" if device.type == "cpu" else f"generator.{device.type}"  # the name of its state
        self.batches = Batches(corpus.training.store, corpus.tokenizer.start, plan.batch, plan.window, config.seed,
                               AHEAD if model.bidirectional else 0)
        rows, own = bounds(plan.batch, plan.shards), bounds(plan.shards, self.world.size)
        self.starts = [rows[shard] for shard in own]  # each process's first row, and the number of rows
        begin, end = own[self.world.rank], own[self.world.rank + 1]
        self.rows, self.shards = range(rows[begin], rows[end]), [slice(rows[k], rows[k + 1]) for k in range(begin, end)]
        self.gradients = self.world.gradients(self.model.parameters(), plan.shards)
        self.say: Callable[[], Sequence[float]] = tuple  # what this process tells the others with each step
        self.heard: list[list[float]] = []  # what each said with the last one
        self.rest()
        self.scored = first(corpus.validation, SCORED, corpus.tokenizer)
        self.temperatures = TEMPERATURES if corpus.held_out else (1.0,)  # a text that is learnt by heart wants none
        self.progress = Progress(plans=[(0, 0.0, plan.steps)])
        self.learning_rate = self.gradient_norm = self.dropped = 0.0
        self.keep()

    def learner(self) -> Learning:
        """What finds the gradients: of the loss, or of that and of the distance to the teacher."""
        output = None if self.teacher is None else (self.teacher.output["w"], self.teacher.output["b"])
        return (Replaying if machine.replays(self.device) else Learning)(Losses(self.model, self.plan.batch, self.precision, output))

    def multiplying(self) -> str:
        """What is multiplied, and by what where the bits depend on it: AMX sums in an order of its own."""
        return "bfloat16 by AMX" if self.precision == "bfloat16" and self.device.type == "cpu" and bfloat16() == "AMX" else self.precision

    def rest(self) -> None:
        """The state is zero, and the teacher's."""
        self.state: State = self.model.zero_state(len(self.rows))
        self.lesson: State = () if self.teacher is None else self.state

    def teach(self, weights: checkpoint.Tensors) -> None:
        """From now on the model learns from a teacher with these weights too."""
        self.teacher = Model(self.model.config).to(self.device).requires_grad_(False)
        self.teacher.load(weights)
        self.learning = self.learner()

    def calibrated(self) -> dict[str, NDArray[Any]]:
        """The best weights so far, logits divided by the temperature that suits them."""
        temperature = np.float32(self.progress.best.get("temperature", 1.0))
        return {name: value / temperature if name.startswith("output.") else value for name, value in self.best.items()}

    def again(self) -> None:
        """The next generation: a fresh model, which learns from the text and from what the best one so far predicts (born-again networks,
        Furlanello et al. 2018)."""
        self.teach(self.calibrated())
        self.progress.again()
        self.model.load(Model(self.model.config, torch.Generator().manual_seed(self.config.seed + self.progress.step)).weights())
        self.optimizer.reset()
        self.rest()

    def keep(self) -> None:
        """These weights are the best so far; where training diverges it goes back to them."""
        self.best = self.model.weights()

    def retreat(self) -> None:
        """Go back to the best weights, at lower rates; the text goes on where it is. TrainingError where that did not help before."""
        progress, rate = self.progress, self.plan.lr
        if progress.retreats == RETREATS:
            raise TrainingError(f"training diverged at step {progress.step}: losses, gradients or weights are no longer numbers, and going "
                                f"back to the best weights at a lower rate did not help; try --lr {rate * LOWER**3:.1g}, below the "
                                f"{rate:.2g} that this run began with, or a smaller --clip")
        progress.retreats += 1
        progress.in_a_row = 0
        self.model.load(self.best)
        self.optimizer.reset()
        self.rest()

    def finite(self) -> bool:
        """‖ Whether all of the state is."""
        here = all(np.isfinite(value).all() for value in self._own_tensors().values() if value.dtype.kind == "f")
        return all(one for one, in self.world.agree(here))

    def drifted(self) -> bool:
        """‖ Whether processes have come to other weights or moments, as where their processors round differently: all take rank 0's."""
        tensors = [*self.model.parameters(), *self.optimizer.state().values()]
        digest = 0
        for tensor in tensors:
            digest = zlib.crc32(tensor.detach().cpu().numpy().tobytes(), digest)
        found = len({one for one, in self.world.agree(digest)}) > 1
        if found:
            self.world.spread(tensors)
        return found

    def drops(self) -> tuple[float, float]:
        """The shares of outputs and of recurrent weights that the next step drops."""
        plan, progress, part = self.plan, self.progress, self.scored
        dropout, weight_drop = ((plan.dropout, plan.weight_drop) if self.teacher is None else
                                (plan.student_dropout, plan.student_weight_drop))
        if not plan.easing:
            return dropout, weight_drop
        surely = self.corpus.unknown_nats_per_character, part.unknown * self.corpus.tokenizer.unknown_nats / part.characters
        known = [(step, training - surely[0], validation - surely[1]) for step, training, validation in progress.curve]
        return recipe.eased(dropout, known, progress.births, progress.length, plan.easing), weight_drop

    def update(self, window: Window) -> float:
        """‖ One step on this process's rows of a window; the nats per token that all rows cost. Where these or the gradient are not finite
        nothing is learnt from it, the next window starts from the zero state, and the result is nan."""
        if window.fresh:
            self.rest()
        self.dropped, weight_drop = self.drops()
        masks = self.model.masks(self.plan.batch, dropout=self.dropped, weight_drop=weight_drop, generator=self.generator)
        costs, states, lessons = [], [], []
        for shard in self.shards:
            rows = self._part(window, shard, masks)
            if self.teacher is not None:
                with torch.no_grad():
                    taught, lesson = self.teacher.hidden(rows.inputs, self._own(self.lesson, shard), precision=self.precision)
                rows = rows._replace(taught=taught)
                lessons.append(lesson)
            loss, state = self.learning(rows)
            self.gradients.take()
            costs.append(float(loss))
            states.append(state)
        costs, self.heard = self.gradients.summed(costs, self.say())
        nats = sum(costs[1:], start=costs[0])
        self.gradient_norm = optim.clip(self.model.parameters(), self.config.clip)
        if not math.isfinite(nats + self.gradient_norm):
            self.optimizer.clear()
            self.rest()
            return math.nan
        share = optim.schedule(self.progress.way()) * LOWER**self.progress.retreats
        self.learning_rate = share * self.plan.lr
        self.optimizer.step(share)
        if states:
            self.state = joint(states)
        if lessons:
            self.lesson = joint(lessons)
        return nats

    def _part(self, window: Window, shard: slice, masks: Sequence[Masks]) -> Rows:
        """A shard's rows."""
        here = slice(shard.start - self.rows.start, shard.stop - self.rows.start)
        inputs, targets, after = (torch.from_numpy(part[:, here]).to(self.device) for part in (window.inputs, window.targets, window.after))
        return Rows(inputs, targets, after, self._own(self.state, shard), [mask.of(shard) for mask in masks])

    def _own(self, state: State, shard: slice) -> State:
        """Those rows of a state."""
        here = slice(shard.start - self.rows.start, shard.stop - self.rows.start)
        return tuple(tuple(part[here] for part in layer) for layer in state)

    def step(self) -> tuple[float, int]:
        """‖ The next update; the nats per token it cost (nan: it was skipped) and how many tokens it read."""
        progress = self.progress
        window = self.batches.window_of(progress.step, self.rows)
        nats, count = self.update(window), len(window.targets) * self.plan.batch
        progress.step += 1
        if math.isnan(nats):
            progress.in_a_row += 1
        else:
            progress.in_a_row = 0
            progress.nats += nats * count
            progress.tokens += count
        return nats, count

    def validate(self, stop: Callable[[], bool] = lambda: False) -> tuple[Score, float]:
        """‖ The validation part, from a state of its own: all of it, or the first SCORED tokens of a longer one; and the temperature at
        which it is cheapest (Guo et al. 2017), at which it is scored. Halted when `stop` says yes meanwhile."""
        part, tried = self.scored, self.temperatures
        found = self.world.shared(self.world.lead(lambda asked: scores(self.model, Watched(part.store, asked), tried), stop)) or [0.0]
        nats, temperature = min(zip(found, tried)) if all(map(math.isfinite, found)) else (math.nan, 1.0)
        return Score(nats + part.unknown * self.corpus.tokenizer.unknown_nats, part.tokens, part.characters, part.bytes), temperature

    def tensors(self) -> dict[str, NDArray[Any]]:
        """‖ The exact state, as arrays."""
        counts = [end - begin for begin, end in itertools.pairwise(self.starts)]
        return self._own_tensors([tuple(tuple(self.world.rows(part, counts) for part in parts) for parts in state)
                                  for state in (self.state, self.lesson)])

    def _own_tensors(self, states: Sequence[State] = ()) -> dict[str, NDArray[Any]]:
        """The same with this process's rows of the recurrent states, or with those `states`."""
        out: dict[str, NDArray[Any]] = {f"weights.{name}": value for name, value in self.model.weights().items()}
        out |= {f"optimizer.{name}": value.cpu().numpy() for name, value in self.optimizer.state().items()}
        for kind, state in zip(STATES, states or (self.state, self.lesson)):
            for layer, parts in enumerate(state):
                for number, part in enumerate(parts):
                    out[f"{kind}.{layer}.{number}"] = part.cpu().numpy()
        out |= {f"best.{name}": value for name, value in self.best.items()}
        if self.teacher is not None:
            out |= {f"teacher.{name}": value for name, value in self.teacher.weights().items()}
        out[self.drawing] = self.generator.get_state().numpy()
        return out

    def restore(self, tensors: checkpoint.Tensors) -> None:
        """The reverse. CheckpointError when they do not fit this model. Random numbers of another kind of device are drawn anew."""
        taught = self.progress.generation > 1
        kinds = ("weights.", "optimizer.", "state.", "best.") + (("lesson.", "teacher.") if taught else ())
        found = {name for name in tensors if not name.startswith(kinds)}
        if len(found) != 1 or found - GENERATORS:
            raise CheckpointError(f"missing or unknown tensors: {', '.join(sorted(found ^ {self.drawing})[:4])[:80]}")
        shapes = self.model.config.shapes()
        expected = {f"weights.{name}": shape for name, shape in shapes.items()}
        checkpoint.check_tensors(tensors, expected, "weights.", np.float32)
        row = (self.plan.batch, self.model.config.hidden)
        for kind in STATES[: 1 + taught]:
            states = {f"{kind}.{i}.{j}": row for i, parts in enumerate(self.state) for j in range(len(parts))}
            checkpoint.check_tensors(tensors, states, f"{kind}.", np.float32)
        moments = self.optimizer.state()
        checkpoint.check_tensors(tensors, {f"optimizer.{name}": tuple(value.shape) for name, value in moments.items()}, "optimizer.",
                                 np.float32)
        checkpoint.check_tensors(tensors, {f"best.{name}": shape for name, shape in shapes.items()}, "best.", np.float32)
        self.best = {name: tensors[f"best.{name}"] for name in shapes}
        self.model.load({name: tensors[f"weights.{name}"] for name in shapes})
        self.optimizer.restore({name: torch.from_numpy(tensors[f"optimizer.{name}"]) for name in moments})
        if taught:
            checkpoint.check_tensors(tensors, {f"teacher.{name}": shape for name, shape in shapes.items()}, "teacher.", np.float32)
            self.teach({name: tensors[f"teacher.{name}"] for name in shapes})

        def own(kind: str) -> State:
            return tuple(tuple(torch.from_numpy(tensors[f"{kind}.{i}.{j}"][self.rows.start : self.rows.stop].copy()).to(self.device)
                               for j in range(len(parts))) for i, parts in enumerate(self.state))

        self.state, self.lesson = own("state"), own("lesson") if taught else ()
        if self.drawing not in tensors:
            self.generator.manual_seed(self.config.seed + 1 + self.progress.step)
            return
        if self.device.type == "cpu" and not drawable(tensors[self.drawing]):
            raise CheckpointError("its random numbers are not valid")
        self.generator.set_state(torch.from_numpy(tensors[self.drawing].copy()))
