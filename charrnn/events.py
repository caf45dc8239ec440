"""What training reports while it runs. The command line draws these, or prints them as JSON, one a line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened; `step` is the number of updates made so far."""

    event: ClassVar[str]
    step: int

    def as_json(self) -> dict[str, Any]:
        """The event's name and fields, in order."""
        fields = dataclasses.asdict(self)
        if fields.get("bidirectional") and "validation_perplexity" in fields:
            fields = {name.replace("validation_perp", "validation_pseudo_perp"): value for name, value in fields.items()}
        return {"event": self.event, **fields}


@dataclass(frozen=True, kw_only=True)
class Start(Event):
    """Before the first step: what is trained on what. `seconds` counts from the start of the run, over all its sessions.

    `plan`: a new run's plan with its reasons, in a few lines. `options`: those of the command line that are not at their default, but
    for the length of the training. `curve`: (step, training, validation) in nats per character of each evaluation so far, where a run
    is resumed.
    """

    event: ClassVar[str] = "start"
    run: str
    text: str
    level: str
    vocabulary: int
    cell: str
    layers: int
    hidden: int
    embedding: int
    parameters: int
    training_tokens: int
    validation_tokens: int
    steps: int
    batch: int
    window: int
    device: str
    threads: int
    seconds: float
    notes: tuple[str, ...]
    bidirectional: bool = False
    plan: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    curve: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """A few updates later: averages over the steps since the last such event; rate, gradient and dropout are those of the last step."""

    event: ClassVar[str] = "step"
    steps: int
    epoch: float
    training_nats_per_character: float
    learning_rate: float
    gradient_norm: float
    dropout: float = 0.0
    characters_per_second: float
    seconds: float
    remaining: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Event):
    """The whole validation part scored. `perplexity` is exp(nats / tokens); of a bidirectional model JSON names it a pseudo-perplexity."""

    event: ClassVar[str] = "evaluation"
    training_nats_per_character: float
    validation_nats_per_character: float
    validation_bits_per_character: float
    validation_perplexity: float
    best: bool
    seconds: float
    bidirectional: bool = False


@dataclass(frozen=True, kw_only=True)
class Sample(Event):
    """What the model writes now."""

    event: ClassVar[str] = "sample"
    text: str


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """Something that is worth knowing and that training went on from: a step that was skipped, a save that failed."""

    event: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A file of the run was written."""

    event: ClassVar[str] = "checkpoint"
    path: str


@dataclass(frozen=True, kw_only=True)
class End(Event):
    """The last event. `reason`: finished, stopped early, interrupted. Figures are the best model's, which is the one kept.

    `outlook`: what the curves say in a word: overfits, unfinished, stuck, memory (of the training text itself), used up
    (more time would change nothing), or nothing; `advice` says it in sentences.
    """

    event: ClassVar[str] = "end"
    reason: str
    run: str
    steps: int
    best_step: int
    seconds: float
    characters_per_second: float
    parameters: int
    training_nats_per_character: float
    validation_nats_per_character: float
    validation_bits_per_character: float
    validation_perplexity: float
    outlook: str = ""
    advice: tuple[str, ...] = ()
    bidirectional: bool = False
