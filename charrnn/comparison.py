"""The same text learnt by one model after another, at equal parameters or equal time: what each paid, how fast, how far it remembers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charrnn import checkpoint, recipe
from charrnn.config import CompareConfig, FillingConfig, ModelConfig, SamplingConfig, TrainingConfig
from charrnn.corpus import Corpus
from charrnn.errors import DataError
from charrnn.events import End, Step
from charrnn.filling import fill
from charrnn.model import Model
from charrnn.sampling import generate
from charrnn.settings import free
from charrnn.training import train

KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"cell": "mlp"}, "rnn": {"cell": "rnn"}, "gru": {"cell": "gru"}, "lstm": {"cell": "lstm"},
    "deep": {"cell": "lstm", "layers": 2}, "both ways": {"cell": "lstm", "bidirectional": True}}
CONTEXTS = (1, 4, 16, 64, 256)
PLACES = 2048  # of the held-out part at which a context's worth is measured
ROWS = 64  # of them that are read side by side: all outputs of a wide model are held meanwhile
WORTH = 0.005  # bits a character from which on what lies farther back counts as used
SEEDS = 0.02  # bits a character by which models differ for nothing but their seeds, at most: see benchmarks/RESULTS.md
STEPS, TIME = 1000, "30s"  # for each model, where nothing was asked for


@dataclass(frozen=True)
class Compared:
    """One model's row. Bits are of the held-out part, per character; `by_context`: by how many characters the model was given (on either
    side, of one that reads both ways, whose figures are pseudo-bits)."""

    model: str
    cell: str
    layers: int
    hidden: int
    parameters: int
    steps: int
    seconds: float
    characters_per_second: float
    bits_per_character: float
    by_context: Mapping[int, float]
    bidirectional: bool
    sample: str

    def as_json(self) -> dict[str, Any]:
        """Field by field; the bits of a model that reads both ways under a name of their own."""
        values = dataclasses.asdict(self)
        return {f"pseudo_{name}" if self.bidirectional and name in ("bits_per_character", "by_context") else name: value
                for name, value in values.items()}


def compare(corpus: Corpus, config: CompareConfig, out: Path,
            progress: Callable[[str, int, int], None] = lambda name, done, steps: None) -> Iterator[Compared]:
    """Train each kind of model on `corpus` into a folder below `out`; its row as soon as it is known, and meanwhile `progress` of its name,
    the steps done and those planned. DataError for too short a text, UsageError where a run is there already."""
    if not corpus.held_out or corpus.validation.tokens < 2 * CONTEXTS[-1]:
        raise DataError(f"{corpus.name}: too short to compare models on: its held-out tenth needs {2 * CONTEXTS[-1]} characters, "
                        f"and has {corpus.validation.tokens if corpus.held_out else 0}")
    runs = {name: out / name.replace(" ", "-") for name in KINDS}
    for run in runs.values():
        free(run)
    for name, run in runs.items():
        for event in train(corpus, settings_of(name, config, corpus.training.tokens, corpus.tokenizer.size), run):
            if isinstance(event, Step):
                progress(name, event.step, event.steps)
            end = event
        assert isinstance(end, End)
        progress(name, end.steps, end.steps)
        yield measured(name, corpus, run, end)


def settings_of(name: str, config: CompareConfig, tokens: int, vocabulary: int) -> TrainingConfig:
    """What a kind of model is trained with."""
    given: dict[str, Any] = {"seed": config.seed, "threads": config.threads, "time": config.time, "steps": config.steps,
                             "generations": 1}
    if config.time is None and config.steps is None:
        given |= {"steps": STEPS} if config.equal == "parameters" else {"time": TIME}
    plain = TrainingConfig(cell="lstm", hidden=config.hidden, **given)
    settings = TrainingConfig(**KINDS[name], hidden=config.hidden, **given)
    if config.equal == "time":
        return settings
    goal = recipe.shape(plain, tokens, vocabulary).parameters()
    model = recipe.of_size(recipe.shape(settings, tokens, vocabulary), goal)
    return dataclasses.replace(settings, hidden=model.hidden, embedding=model.embedding)


def measured(name: str, corpus: Corpus, path: Path, end: End) -> Compared:
    """The row of a model that has been trained."""
    run = checkpoint.load(path)
    model = Model(run.config)
    model.load(run.weights)
    tokens = corpus.validation.store.read(0, corpus.validation.tokens).astype(np.int64)
    if run.config.bidirectional:
        at = min(len(tokens) - 61, 200)
        left, right = (corpus.tokenizer.decode(part) for part in (tokens[at - 60 : at], tokens[at + 12 : at + 60]))
        best, = fill(run, f"{left}{'␣' * 12}{right}", FillingConfig(gap="␣", count=1))
        written = f"{left[-20:]}[{best.fills[0]}]{right}"
    else:
        written = "".join(piece.text for piece in generate(run, SamplingConfig(length=160, seed=1)))
    return Compared(
        model=name, cell=run.config.cell, layers=run.config.layers, hidden=run.config.hidden, parameters=end.parameters, steps=end.steps,
        seconds=end.seconds, characters_per_second=end.characters_per_second, bits_per_character=end.validation_bits_per_character,
        by_context={size: by_context(model, tokens, size) for size in CONTEXTS}, bidirectional=run.config.bidirectional, sample=written)


@torch.no_grad()
def by_context(model: Model, tokens: np.ndarray[Any, np.dtype[np.int64]], size: int, longest: int = CONTEXTS[-1]) -> float:
    """Bits per token where the state is zero and exactly `size` tokens are given (on either side, of a model that reads both ways), at
    PLACES of `tokens` that are the same for each size up to `longest`."""
    after = size if model.config.bidirectional else 0
    last = len(tokens) - (longest if model.config.bidirectional else 0)
    places = np.unique(np.linspace(longest, last - 1, PLACES).astype(np.int64))
    nats = 0.0
    for some in np.array_split(places, max(1, len(places) // ROWS)):
        block = torch.from_numpy(tokens[some[None, :] + np.arange(-size, after + 1)[:, None]])
        state = model.zero_state(len(some))
        hidden = model.hidden(block[:size], state)[0][-1]
        if model.config.bidirectional:
            hidden = torch.cat([hidden, model.hidden(block[size + 1 :].flip(0), state, backward=True)[0][-1]], 1)
        logits = hidden @ model.output["w"] + model.output["b"]
        nats += float(torch.nn.functional.cross_entropy(logits, block[size], reduction="sum"))
    return nats / len(places) / math.log(2)


def claims(rows: Mapping[str, Compared]) -> list[tuple[str, str, bool | None]]:
    """What textbooks say, what was measured here, and whether it held. None where that cannot be told: of memory, if neither
    model gains by what lies so far back; of speed, if the two are within 5 %; of quality, if they differ no more than seeds do."""
    rnn, gru, lstm, deep = (rows[name] for name in ("rnn", "gru", "lstm", "deep"))
    same = [ModelConfig(cell=cell, hidden=256, vocabulary=64).parameters() for cell in ("gru", "lstm")]

    def gain(row: Compared, short: int, long: int) -> float:
        return round(row.by_context[short] - row.by_context[long], 3) + 0.0  # without -0.000

    far = max(gain(rnn, 16, 256), gain(lstm, 16, 256)) > WORTH
    farther = max(gain(rnn, 64, 256), gain(lstm, 64, 256)) > WORTH
    deeper = lstm.bits_per_character - deep.bits_per_character
    faster = gru.characters_per_second / lstm.characters_per_second
    return [
        ("a gru has fewer parameters than an lstm of the same width", f"{same[0]:,} against {same[1]:,} at 256 units and 64 symbols",
         same[0] < same[1]),
        ("a gru trains faster than an lstm", f"{gru.characters_per_second:,.0f} against {lstm.characters_per_second:,.0f} characters a "
         f"second, with {gru.parameters:,} and {lstm.parameters:,} parameters", faster > 1 if abs(faster - 1) > 0.05 else None),
        ("an lstm remembers longer than a plain rnn", f"characters 17 to 256 back are worth {gain(lstm, 16, 256):.3f} bits to the lstm, "
         f"{gain(rnn, 16, 256):.3f} to the rnn", gain(lstm, 16, 256) > gain(rnn, 16, 256) + WORTH if far else None),
        ("a plain rnn forgets", f"what lies more than 64 characters back is worth {gain(rnn, 64, 256):.3f} bits to it, "
         f"{gain(lstm, 64, 256):.3f} to the lstm", gain(rnn, 64, 256) < WORTH if farther else None),
        ("gru and lstm are about equally good", f"{gru.bits_per_character:.3f} and {lstm.bits_per_character:.3f} bits a character",
         abs(gru.bits_per_character - lstm.bits_per_character) < 0.05),
        ("a second layer helps", f"{deep.bits_per_character:.3f} bits with two, {lstm.bits_per_character:.3f} with one",
         deeper > 0 if abs(deeper) > SEEDS else None),
    ]
