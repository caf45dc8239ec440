"""Where a run stands, in numbers."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Self

from charrnn import checkpoint
from charrnn.errors import CheckpointError

BEST = {"step", "training_nats_per_character", "validation_nats_per_character", "validation_bits_per_character",
        "validation_nats_per_token", "temperature"}  # what is known of the best model so far


@dataclass
class Progress:
    """Where a run stands, in numbers; all of it goes into resume.safetensors."""

    step: int = 0
    # At this step, so far along, it was planned to end at that step; a generation begins where it is no way along.
    plans: list[tuple[int, float, int]] = field(default_factory=list)
    seconds: float = 0.0
    nats: float = 0.0  # since the last evaluation
    tokens: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    waited: int = 0  # evaluations since the best one of this generation
    done: str = ""
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, training, validation) in nats per character
    due: bool = False  # the evaluation at this step is still to be made
    in_a_row: int = 0  # updates skipped since the last one that was made: their loss or gradient was not finite
    retreats: int = 0  # times that the run went back to its best weights

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The reverse of dataclasses.asdict. A file is not trusted: CheckpointError for a missing, unknown or impossible value."""
        kinds: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "dict[str, Any]": dict}
        fields = {field.name: kinds.get(str(field.type), list) for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != set(fields):
            raise CheckpointError("its progress has missing or unknown values")
        for name, kind in fields.items():
            value = values[name]
            number = kind in (int, float)
            if type(value) not in ((int, float) if kind is float else (kind,)) or (number and not 0 <= value < 1e300):
                raise CheckpointError(f"its progress is not valid: {name} is {str(value)[:40]}")
        plans, before = [_of_types(plan, (int, float, int), "plans") for plan in values["plans"]], -1
        for at, way, steps in plans:
            if not before < at < steps <= 10**9 or not 0 <= way < 1:
                raise CheckpointError("its progress is not valid: its plans do not follow each other")
            before = at
        if not plans or plans[0][:2] != (0, 0.0) or not before <= values["step"] <= plans[-1][2]:
            raise CheckpointError("its progress is not valid: its step is not within its plans")
        checkpoint.check_curve(values["curve"])
        if not re.fullmatch("[a-z ]{0,20}", values["done"]):
            raise CheckpointError("its progress is not valid: it is not done in a way that is known")
        if set(values["best"]) not in (set(), BEST) or any(type(value) not in (int, float) for value in values["best"].values()):
            raise CheckpointError("its progress is not valid: its best figures are missing, unknown or no numbers")
        if values["best"] and not 0.1 <= values["best"]["temperature"] <= 10:
            raise CheckpointError("its progress is not valid: no temperature is like that of its best model")
        return cls(**values | {"plans": plans, "curve": [tuple(point) for point in values["curve"]]})

    @property
    def steps(self) -> int:
        """The step at which this generation ends, as last planned."""
        return self.plans[-1][2]

    @property
    def births(self) -> list[int]:
        """The steps at which a model was begun."""
        return [at for at, way, _ in self.plans if way == 0]

    @property
    def generation(self) -> int:
        """How many models were begun."""
        return len(self.births)

    @property
    def born(self) -> int:
        """The step at which this generation began."""
        return self.births[-1]

    @property
    def length(self) -> int:
        """How many steps this generation has, as last planned."""
        return self.steps - self.born

    def own_curve(self) -> list[tuple[int, float, float]]:
        """That of this generation."""
        return [point for point in self.curve if point[0] > self.born]

    def again(self) -> None:
        """The next generation begins, of as many steps."""
        self.plans.append((self.step, 0.0, self.step + self.length))
        self.waited, self.nats, self.tokens = 0, 0.0, 0

    def way(self) -> float:
        """How far along the run is in the middle of the next step, from 0 to 1; a new plan changes the pace, never the place."""
        at, way, steps = self.plans[-1]
        return way + (1 - way) * (self.step + 0.5 - at) / (steps - at)

    def plan_again(self, steps: int) -> None:
        """End at `steps` instead."""
        at, way, before = self.plans[-1]
        self.plans.append((self.step, way + (1 - way) * (self.step - at) / (before - at), steps))


def _of_types(item: Any, kinds: tuple[type, ...], name: str) -> tuple[Any, ...]:
    """A list from JSON as a tuple; CheckpointError unless it has these types."""
    if not isinstance(item, list) or len(item) != len(kinds) or any(type(value) is not kind for value, kind in zip(item, kinds)):
        raise CheckpointError(f"its progress is not valid: {name} has {str(item)[:40]}")
    return tuple(item)
