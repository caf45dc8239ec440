"""What a run is to be trained with: the options given, those it has on record, those of the run that it starts from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrnn import checkpoint
from charrnn.checkpoint import Run
from charrnn.config import TrainingConfig, option_name
from charrnn.errors import CheckpointError, UsageError

MACHINE = ("device", "threads")  # may change from session to session
SHAPE = ("level", "cell", "layers", "hidden", "embedding", "activation", "gru_reset", "bidirectional")  # comes with another run's weights


def decide(run: Path, given: Mapping[str, Any], *, resume: bool = False, init_from: Run | None = None) -> TrainingConfig:
    """The settings for training into `run`, of which the user gave `given`.

    UsageError: there is a run and it is not to be resumed; or one of the settings is not the recorded (or inherited) one.
    CheckpointError: there is nothing to resume.
    """
    if resume and init_from is not None:
        raise UsageError("--resume and --init-from exclude each other: the one goes on with a run, the other begins a new one")
    if resume:
        return on_record(run, given)
    free(run, "go on with it by --resume, or name another folder with --out")
    return begun(given, init_from)


def free(run: Path, instead: str = "name another folder with --out") -> None:
    """UsageError where a new run cannot be put: one that is there is never overwritten."""
    if any(os.path.lexists(run / name) for name in (checkpoint.MODEL, checkpoint.RESUME, checkpoint.PREVIOUS, checkpoint.METRICS)):
        raise UsageError(f"{run}: there is a run here already; {instead}")
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run}: not a folder; name another place with --out")


def begun(given: Mapping[str, Any], init_from: Run | None = None) -> TrainingConfig:
    """The settings for a new run, wherever it goes."""
    return inherited(given, init_from) if init_from is not None else TrainingConfig(**given)


def on_record(run: Path, given: Mapping[str, Any]) -> TrainingConfig:
    """The recorded settings of a run; only those of the machine may be given anew."""
    if not any((run / name).is_file() for name in (checkpoint.RESUME, checkpoint.PREVIOUS)):
        raise CheckpointError(f"{run}: there is nothing to resume here; train without --resume")
    _, about, _ = checkpoint.newest_state(run)
    try:
        config = TrainingConfig.from_json(about["training"])
    except (CheckpointError, KeyError) as error:
        raise CheckpointError(f"{run / checkpoint.RESUME}: {error}") from None
    for name, value in given.items():
        if name not in MACHINE and value != getattr(config, name):
            recorded = "the default" if getattr(config, name) is None else getattr(config, name)
            raise UsageError(f"--resume: this run was started with {option_name(name)} {recorded}, not {value}; "
                             f"leave the option out, or begin a new run with --out (and --init-from {run})")
    return dataclasses.replace(config, **{name: given[name] for name in MACHINE if name in given})


def inherited(given: Mapping[str, Any], other: Run) -> TrainingConfig:
    """The settings given, with the shape of the other run's model."""
    theirs = other.config.as_json() | {"level": other.tokenizer.level}
    for name in SHAPE:
        if name in given and given[name] != theirs[name]:
            raise UsageError(f"{option_name(name)} {given[name]}: the run to start from has {theirs[name]}; leave the option out")
    if other.tokenizer.level in ("subword", "word") and "vocab_size" not in given:
        given = {**given, "vocab_size": other.training.vocab_size}
    return TrainingConfig(**{"generations": 1, **given, **{name: theirs[name] for name in SHAPE}})
