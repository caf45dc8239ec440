"""A run on disk: files in the safetensors format, each whole or absent, every byte of it covered by a SHA-256.

    resume.safetensors            the exact state of the training; all else here can be made from it
    resume.previous.safetensors   the one before it, in case that it cannot be read one day
    model.safetensors             the best model so far, and all that sampling needs
    metrics.jsonl                 one line an evaluation

All of ours is one metadata key with canonical JSON, so that the same state gives the same bytes. The digest stands in it first, at a
fixed place, and is taken over the file with zeros in that place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig, TrainingConfig
from charrnn.container import Tensors as Tensors
from charrnn.container import read as read
from charrnn.container import sealed as sealed
from charrnn.disk import write_whole
from charrnn.errors import CheckpointError
from charrnn.fingerprint import KEPT
from charrnn.tokenizer import Tokenizer

MODEL, RESUME, METRICS, SAMPLES = "model.safetensors", "resume.safetensors", "metrics.jsonl", "samples.jsonl"
PREVIOUS = "resume.previous.safetensors"
SAMPLED = 16 << 20  # bytes of samples that are read


def write(path: Path, tensors: Tensors, about: Mapping[str, Any], previous: Path | None = None) -> None:
    """Write tensors and what is to be known about them, the old file kept as `previous`. StorageError."""
    write_whole(path, sealed(tensors, about), previous)


def newest_state(run: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any], str]:
    """The newest state in a run's folder that verifies, and a warning where it isn't the newest that was written. CheckpointError."""
    try:
        return *read(run / RESUME), ""
    except CheckpointError as error:
        try:
            tensors, about = read(run / PREVIOUS)
        except CheckpointError:
            raise error from None
        return tensors, about, f"{error}: this goes on from the state before it, {PREVIOUS}"


@dataclass(frozen=True)
class Run:
    """A trained model as it lies on disk, in a folder or a file at `path`; `weights` are named and shaped as `config.shapes()`."""

    path: Path
    config: ModelConfig
    training: TrainingConfig
    tokenizer: Tokenizer
    weights: dict[str, NDArray[np.float32]]
    unigram: NDArray[np.int64]  # how often each token stands in the training part
    fingerprint: tuple[NDArray[np.uint64], int]  # see corpus.Fingerprint
    text: dict[str, Any]  # name, digest, counts
    metrics: dict[str, Any]  # the figures of this model


def model_tensors(run: Run) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The content of a run's model file."""
    config, payload = run.tokenizer.to_bytes()
    tensors: dict[str, NDArray[Any]] = {f"weights.{name}": value for name, value in run.weights.items()}
    tensors |= {"tokenizer": np.frombuffer(payload, np.uint8), "unigram": run.unigram, "fingerprint": run.fingerprint[0]}
    about = {"kind": "model", "model": run.config.as_json(), "training": run.training.as_json(), "tokenizer": config,
             "text": run.text, "metrics": run.metrics, "fingerprint_below": str(run.fingerprint[1])}
    return tensors, about


def save_model(run: Run) -> None:
    """Write a run's model file into its folder."""
    write(run.path / MODEL, *model_tensors(run))


def model_file(run: str | Path) -> Path:
    """The file of a run that is named by its folder or by the file itself. CheckpointError where there is none."""
    path = Path(run)
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such run; `charrnn train` makes one")
        if path.is_dir():
            if not (path / MODEL).is_file():
                raise CheckpointError(f"{path}: not a run: there is no {MODEL} in it")
            return path / MODEL
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return path


def load(run: str | Path) -> Run:
    """The model of a run, every part of it checked against its configuration. CheckpointError."""
    path = model_file(run)
    tensors, about = read(path)
    try:
        return _run(Path(run), tensors, about)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: incomplete: {error}") from None


def _run(path: Path, tensors: Tensors, about: dict[str, Any]) -> Run:
    """A run of what is in its file."""
    if about["kind"] != "model":
        raise CheckpointError(f"it holds no model but a {str(about['kind'])[:20]} state; give the run's folder instead")
    if wrong := set(about) ^ {"sha256", "format", "kind", "model", "training", "tokenizer", "text", "metrics", "fingerprint_below"}:
        raise CheckpointError(f"missing or unknown fields: {', '.join(sorted(wrong)[:4])[:80]}")
    config = ModelConfig.from_json(about["model"])
    shapes = config.shapes()
    others = {"tokenizer", "unigram", "fingerprint"}
    if wrong := {name for name in tensors if not name.startswith("weights.")} ^ others:
        raise CheckpointError(f"missing or unknown tensors: {', '.join(sorted(wrong)[:4])[:80]}")
    check_tensors(tensors, {f"weights.{name}": shape for name, shape in shapes.items()}, "weights.", np.float32)
    unigram, hashes, payload = tensors["unigram"], tensors["fingerprint"], tensors["tokenizer"]
    if payload.dtype != np.uint8 or payload.ndim != 1:
        raise CheckpointError("its tokenizer is not bytes")
    tokenizer = Tokenizer.from_bytes(about["tokenizer"], payload.tobytes())
    if tokenizer.size != config.vocabulary:
        raise CheckpointError(f"its tokenizer has {tokenizer.size} tokens, its model {config.vocabulary}")
    if unigram.shape != (config.vocabulary,) or unigram.dtype != np.int64 or unigram.min() < 0 or unigram.max() >= 2**40:
        raise CheckpointError("its token counts do not fit its vocabulary")
    if (not re.fullmatch(r"[1-9][0-9]{0,19}", about["fingerprint_below"]) or hashes.dtype != np.uint64 or hashes.ndim != 1
            or len(hashes) > KEPT or (hashes[1:] <= hashes[:-1]).any()):
        raise CheckpointError("its fingerprint is not valid")
    return Run(path, config, TrainingConfig.from_json(about["training"]), tokenizer, {name: tensors[f"weights.{name}"] for name in shapes},
               unigram, (hashes, int(about["fingerprint_below"])), _text(about["text"]), _metrics(about["metrics"]))


def _text(text: Any) -> dict[str, Any]:
    """What is known of the text, checked."""
    counts = {f"{part}_{what}" for part in ("training", "validation") for what in ("tokens", "characters")} | {"characters"}
    if not isinstance(text, dict) or set(text) != counts | {"name", "digest", "held_out"} or type(text["held_out"]) is not bool or (
            not isinstance(text["name"], str) or not re.fullmatch(r"\w[\w.-]{0,47}", text["name"])  # it may become part of a path
            or not isinstance(text["digest"], str) or not re.fullmatch("[0-9a-f]{64}", text["digest"])
            or any(type(text[name]) is not int or not 0 <= text[name] < 2**40 for name in counts)
            or text["characters"] < 1 or text["validation_characters"] > text["characters"]):
        raise CheckpointError("what it says of its text is not valid")
    return text


def _metrics(metrics: Any) -> dict[str, Any]:
    """The figures of a model, checked."""
    if not isinstance(metrics, dict) or not {"step", "curve", "plan"} <= set(metrics) or not isinstance(metrics["plan"], dict) or any(
            type(value) not in (int, float) for name, value in metrics.items() if name not in ("curve", "plan")):
        raise CheckpointError("its figures are not valid")
    check_curve(metrics["curve"])
    return metrics


def recorded(run: Path) -> list[dict[str, Any]]:
    """Step and text of each sample that was kept while a run was trained; none where they cannot be read: they can be missed."""
    try:
        path = run / SAMPLES
        if not path.is_file() or path.stat().st_size > SAMPLED:
            return []
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{"step": int(row["step"]), "text": str(row["text"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return []


def check_curve(curve: Any) -> None:
    """CheckpointError unless `curve` lists (step, training, validation), the losses in nats per character."""
    if not isinstance(curve, list) or not all(
            isinstance(point, list) and len(point) == 3 and type(point[0]) is int and 0 <= point[0] <= 10**12
            and all(type(loss) in (int, float) and abs(loss) < 1e300 for loss in point[1:]) for point in curve):
        raise CheckpointError("its curve is not valid")


def check_tensors(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], prefix: str, dtype: type) -> None:
    """Exact names below `prefix`, exact shapes and types, finite values. CheckpointError."""
    names = {name for name in tensors if name.startswith(prefix)}
    if names != set(shapes):
        raise CheckpointError(f"missing or unknown tensors: {', '.join(sorted(names ^ set(shapes))[:4])[:80]}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise CheckpointError(f"{name} is {tensor.dtype} {tensor.shape}, expected {np.dtype(dtype)} {shape}")
        if math.prod(shape) and not np.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds a value that is not finite")

