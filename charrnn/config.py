"""What can be set: each value with its default, range and help, written once. The command line is made from these fields."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Self

from charrnn.cells import GATES
from charrnn.errors import CheckpointError, UsageError

LEVELS = ("char", "subword", "word", "byte")
PRECISIONS = ("float32", "bfloat16")


def setting(default: Any, help: str, *, low: float | None = None, high: float | None = None, above: float | None = None,
            choices: tuple[str, ...] | None = None, group: str = "Options", unit: str | None = None, later: bool = False) -> Any:
    """A field that is also a command-line option: `low` and `high` are allowed themselves, `above` is not. `later`: runs written before
    the field was there lack it, and have its default."""
    about = {"help": help, "low": low, "high": high, "above": above, "choices": choices, "group": group, "unit": unit, "later": later}
    return dataclasses.field(default=default, metadata=about)


def option_name(field: str) -> str:
    """The option of a field: `top_k` is set with `--top-k`."""
    return "--" + field.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A frozen set of values, checked when it is made (UsageError)."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field, hints[field.name], getattr(self, field.name))

    def as_json(self) -> dict[str, Any]:
        """Field by field, in order."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The reverse. What a file says is not trusted: CheckpointError for a missing, unknown or impossible value."""
        names = {field.name for field in dataclasses.fields(cls)}
        if isinstance(values, dict):
            values = {field.name: field.default for field in dataclasses.fields(cls) if field.metadata.get("later")} | values
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(set(values) ^ names) if isinstance(values, dict) else type(values).__name__
            raise CheckpointError(f"its {cls.__name__} has missing or unknown values: {found}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except (UsageError, TypeError) as error:
            raise CheckpointError(f"its {cls.__name__} is not valid: {error}") from None


def _check(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    name, about = option_name(field.name), field.metadata
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    kind = next(k for k in kinds if k is not type(None))
    if kind is float and type(value) is int:
        kind = int
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{name} takes texts, found {value!r}")
        return
    if type(value) is not kind:
        raise UsageError(f"{name} takes a value of type {kind.__name__}, found {value!r}")
    if about.get("choices") and value not in about["choices"]:
        raise UsageError(f"{name} {value}: not known; choose from {', '.join(about['choices'])}")
    if kind in (int, float):
        low, high, above = about.get("low"), about.get("high"), about.get("above")
        bad = (kind is float and not math.isfinite(value)) or (low is not None and value < low) or (high is not None and value > high)
        if bad or (above is not None and value <= above):
            least = f"more than {above:g}" if above is not None else f"at least {low:g}" if low is not None else ""
            most = f"at most {high:g}" if high is not None else ""
            raise UsageError(f"{name} {value}: must be {' and '.join(filter(None, (least, most))) or 'finite'}")


def seconds(time: str, option: str = "time") -> float:
    """`90s`, `3m`, `1.5h`, `1h30m`, or plain seconds, in seconds. UsageError when it is none of these or zero."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", time.strip())
    try:
        total = sum(float(part) * unit for part, unit in zip(parts.groups(), (3600, 60, 1)) if part) if parts else 0.0
    except ValueError:
        total = 0.0
    if not 0 < total < 1e8:
        raise UsageError(f"--{option} {time}: not a length of time; write it as 90s, 3m, 1.5h or 1h30m")
    return total


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The shape of a model: all that its equations need."""

    cell: str = setting("lstm", "", choices=tuple(GATES))
    layers: int = setting(1, "", low=1, high=64)
    hidden: int = setting(256, "", low=1, high=65536)
    embedding: int = setting(64, "", low=0, high=65536)
    activation: str = setting("tanh", "", choices=("tanh", "relu", "sigmoid"))
    gru_reset: str = setting("before", "", choices=("before", "after"))
    vocabulary: int = setting(256, "", low=1, high=2**24)
    bidirectional: bool = setting(False, "", later=True)

    @property
    def towers(self) -> tuple[str, ...]:
        """The stacks of layers, as their weights are named: one that reads forward and, where there is one, one that reads backward."""
        return ("layers", "back") if self.bidirectional else ("layers",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each weight's name and shape; the input tables have a row more than the vocabulary, for the symbol at the text's ends."""
        V, E, H, G = self.vocabulary, self.embedding, self.hidden, GATES[self.cell]
        shapes: dict[str, tuple[int, ...]] = {"embedding": (V + 1, E)} if E else {}
        for tower, layer in itertools.product(self.towers, range(self.layers)):
            inputs = H if layer else E or V + 1
            shapes[f"{tower}.{layer}.w_x"] = (inputs, G * H)
            if self.cell != "mlp":
                shapes[f"{tower}.{layer}.w_h"] = (H, G * H)
            shapes[f"{tower}.{layer}.b"] = (G * H,)
            if self.cell == "gru" and self.gru_reset == "after":
                shapes[f"{tower}.{layer}.b_h"] = (H,)
        return {**shapes, "output.w": (len(self.towers) * H, V), "output.b": (V,)}

    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(math.prod(shape) for shape in self.shapes().values())


_TEXT, _MODEL, _LENGTH, _LEARNING, _MACHINE = "Text", "Model", "How long", "Learning", "Machine"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """What the user asked for. None: chosen to suit the text and the time."""

    level: str = setting("char", "What a token is.", choices=LEVELS, group=_TEXT)
    vocab_size: int | None = setting(None, "Tokens at subword and word level, at most 262144. Default: by the text's length.", low=1,
                                     high=2**24, group=_TEXT)
    valid: float = setting(0.1, "The share at the end of the text that is held out; 0 trains on all of it.", low=0, high=0.9,
                           group=_TEXT)
    encoding: str = setting("utf-8", "How the text's bytes are to be read.", group=_TEXT)
    errors: str = setting("strict", "Bytes that are not in that encoding: refuse them, or put U+FFFD in their place.",
                          choices=("strict", "replace"), group=_TEXT)

    cell: str = setting("lstm", "The recurrent cell; mlp has no memory and is the baseline.", choices=("lstm", "gru", "rnn", "mlp"),
                        group=_MODEL)
    layers: int | None = setting(None, "Layers, one on the other. Default: 1.", low=1, high=64, group=_MODEL)
    hidden: int | None = setting(None, "Hidden units of each layer. Default: by text and time.", low=1, high=65536, group=_MODEL)
    embedding: int | None = setting(None, "Size of the input embedding; 0 is one-hot. Default: by the vocabulary.", low=0, high=65536,
                                    group=_MODEL)
    bidirectional: bool = setting(False, "Read both ways, to fill gaps: each token is predicted from all that stands before and after "
                                  "it. Such a model cannot go on from a prompt.", group=_MODEL, later=True)
    activation: str = setting("tanh", "φ of rnn and mlp.", choices=("tanh", "relu", "sigmoid"), group=_MODEL)
    gru_reset: str = setting("before", "Where gru applies its reset gate: before the product (the papers) or after (cuDNN).",
                             choices=("before", "after"), group=_MODEL)
    dropout: float | None = setting(None, "Share of each layer's output that is dropped while training. Default: by how often the "
                                    "text is read, and less while that costs more than the held-out text shows to be learnt by heart.",
                                    low=0, high=0.95, group=_MODEL)
    weight_drop: float | None = setting(None, "Share of the recurrent weights that is dropped, others at each update. Default: by "
                                        "how often the text is read; none with --dropout 0.", low=0, high=0.95, group=_MODEL, later=True)

    time: str | None = setting(None, "Train for this long, such as 90s, 3m, 1h30m. Default: 3m.", group=_LENGTH)
    steps: int | None = setting(None, "Train for this many updates.", low=1, high=10**9, group=_LENGTH)
    epochs: float | None = setting(None, "Train for this many passes over the text.", above=0, high=10**6, group=_LENGTH)
    generations: int | None = setting(None, "Train this many models one after the other, each for --steps or --epochs; each learns from "
                                      "the text and from what the best one before it predicts. Default: 2 where the time is enough, 1 "
                                      "without --time.", low=1, high=100, group=_LENGTH, later=True)

    batch: int | None = setting(None, "Rows of text read side by side. Default: by the text's length.", low=1, high=65536,
                                group=_LEARNING)
    window: int | None = setting(None, "Tokens of a row in one update; gradients reach back this far. Default: 64.", low=1, high=65536,
                                 group=_LEARNING)
    lr: float | None = setting(None, "Peak learning rate. Default: by the width.", above=0, high=100, group=_LEARNING)
    clip: float = setting(1.0, "Largest norm of the gradient.", above=0, high=1e6, group=_LEARNING)
    seed: int = setting(1, "The same seed gives the same model, on the same machine.", low=0, high=2**63 - 1, group=_LEARNING)

    device: str = setting("auto", "cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.", group=_MACHINE)
    threads: int | None = setting(None, "Processor threads. Default: one a core.", low=1, high=1024, group=_MACHINE)
    shards: int | None = setting(None, "Parts of a batch, whose gradients are made one by one, by one process or several: the same parts "
                                 "give the same model. Default: one a process.", low=1, high=65536, group=_MACHINE, later=True)
    precision: str = setting("auto", "What is multiplied while training; sums and weights are float32 in any case. auto takes bfloat16, "
                             "up to several times as fast, where the processor or the GPU has instructions for it.",
                             choices=("auto", *PRECISIONS), group=_MACHINE, later=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(value is not None for value in (self.time, self.steps, self.epochs)) > 1:
            raise UsageError("--time, --steps and --epochs exclude each other: give one")
        if self.time is not None:
            seconds(self.time)
        if self.bidirectional and (self.generations or 1) > 1:
            raise UsageError(f"--generations {self.generations} is for models that read from left to right, not for --bidirectional")
        if self.activation != "tanh" and self.cell not in ("rnn", "mlp"):
            raise UsageError(f"--activation {self.activation} is for rnn and mlp; the equations of {self.cell} leave no choice")
        if self.gru_reset != "before" and self.cell != "gru":
            raise UsageError(f"--gru-reset {self.gru_reset} is for gru, not for {self.cell}")
        if self.vocab_size is not None and self.level in ("char", "byte"):
            raise UsageError(f"--vocab-size is for subword and word level; at {self.level} level the text decides")

    def options(self) -> tuple[str, ...]:
        """What is not at its default, as options of the command line; but for time, steps and epochs."""
        default = TrainingConfig()
        return tuple(word for name, value in self.as_json().items() if name not in ("time", "steps", "epochs")
                     and value != getattr(default, name) for word in (option_name(name), str(value))[: 1 if value is True else 2])


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How text is drawn from the model."""

    prompt: str = setting("", "The text to go on from; - reads it from stdin.")
    length: int = setting(500, "How much to write, in tokens.", low=0, high=10**9)
    temperature: float = setting(0.8, "Below 1 bolder about what is likely, above 1 wilder; 0 always takes the most likely.",
                                 low=0, high=100)
    top_k: int = setting(0, "Draw from the k most likely tokens only; 0 is all.", low=0, high=2**24)
    top_p: float = setting(1.0, "Draw from the fewest tokens that make up this share of the probability.", above=0, high=1)
    min_p: float = setting(0.0, "Leave out tokens less likely than this share of the most likely one's probability.", low=0, high=1)
    repetition_penalty: float = setting(1.0, "Above 1 makes the last 64 tokens less likely to come again.", low=0.01, high=100)
    stop: tuple[str, ...] = setting((), "End before this text; may be given several times.")
    count: int = setting(1, "How many samples, drawn side by side.", low=1, high=65536)
    seed: int | None = setting(None, "The same seed writes the same text. Default: a new one each time.", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.stop:
            raise UsageError("--stop takes a text that is not empty")


@dataclass(frozen=True, kw_only=True)
class FillingConfig(Config):
    """How the gaps of a text are filled."""

    gap: str = setting("_", "The mark of a missing character; a run of them is a gap.")
    length: str | None = setting(None, "The length of each gap in characters, such as 5 or 3-12. Default: as long as its marks.")
    count: int = setting(5, "How many candidates to show.", low=1, high=1000)
    width: int = setting(128, "How many candidates are followed side by side: more find better ones, and take longer.", low=1, high=65536)


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """How kinds of models are compared. None: as chosen by the text."""

    equal: str = setting("parameters", "What all models have alike: as many parameters, and steps; or as much time.",
                         choices=("parameters", "time"))
    steps: int | None = setting(None, "Updates of each model. Default: 1000 at equal parameters.", low=1, high=10**9)
    time: str | None = setting(None, "Time for each model, such as 30s or 3m. Default: 30s at equal time.")
    hidden: int | None = setting(None, "Hidden units of the lstm; the others get as many parameters. At equal time: of all. Default: by "
                                 "text and time.", low=1, high=65536)
    seed: int = setting(1, "The same seed gives the same models, where steps are counted.", low=0, high=2**63 - 1)
    threads: int | None = setting(None, "Processor threads. Default: one a core.", low=1, high=1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time is not None and self.steps is not None:
            raise UsageError("--time and --steps exclude each other: give one")
        if self.time is not None:
            seconds(self.time)
