"""A run on disk: files in the safetensors format, each whole or absent, every byte of it covered by a SHA-256.

    resume.safetensors            the exact state of the training; all else here can be made from it
    resume.previous.safetensors   the one before it, in case that it cannot be read one day
    model.safetensors             the best model so far, and all that sampling needs
    metrics.jsonl                 one line an evaluation

All of ours is one metadata key with canonical JSON, so that the same state gives the same bytes. The digest stands in it first, at a
fixed place, and is taken over the file with zeros in that place.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from charrnn.config import ModelConfig, TrainingConfig
from charrnn.disk import write_whole
from charrnn.errors import CheckpointError
from charrnn.tokenizer import Tokenizer

FORMAT = 1
MODEL, RESUME, METRICS, SAMPLES = "model.safetensors", "resume.safetensors", "metrics.jsonl", "samples.jsonl"
PREVIOUS = "resume.previous.safetensors"
LARGEST = 16 << 30
_ZEROS = b"0" * 64
_LEAD = b'{"__metadata__":{"charrnn":"{\\"sha256\\":\\"'
_DIGEST = slice(8 + len(_LEAD), 8 + len(_LEAD) + 64)

Tensors = Mapping[str, NDArray[Any]]


def packed(tensors: Tensors, about: Mapping[str, Any]) -> bytes:
    """A file's bytes: tensors and what is to be known about them. The same content gives the same bytes."""
    rest = json.dumps({"format": FORMAT, **about}, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    data = bytearray(pack(dict(tensors), {"charrnn": '{"sha256":"' + "0" * 64 + '",' + rest[1:]}))
    if not data[8:].startswith(_LEAD + _ZEROS):
        raise AssertionError("safetensors has changed the order of its header")
    data[_DIGEST] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def write(path: Path, tensors: Tensors, about: Mapping[str, Any], previous: Path | None = None) -> None:
    """Write such a file, the old one kept as `previous`. StorageError."""
    write_whole(path, packed(tensors, about), previous)


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors of a file and what is known about them, after its digest and version have been checked. CheckpointError."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST:
                raise CheckpointError(f"{path}: larger than any run")
            data = bytearray(file.read(LARGEST))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; is it the folder of a run?") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not data[8:].startswith(_LEAD):
        raise CheckpointError(f"{path}: not a file that charrnn wrote")
    digest, data[_DIGEST] = bytes(data[_DIGEST]), _ZEROS
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise CheckpointError(f"{path}: damaged (its SHA-256 does not fit); restore it from a copy, or train again")
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["charrnn"])
        version = about["format"]
        if type(version) is int and version > FORMAT:
            raise CheckpointError(f"{path}: written by a newer charrnn (format {version}, this one reads {FORMAT}); upgrade charrnn")
        if version != FORMAT:
            raise CheckpointError(f"{path}: of no format that charrnn knows: {version!r}")
        return unpack(bytes(data)), about
    except (ValueError, KeyError, TypeError, SafetensorError, RecursionError):
        raise CheckpointError(f"{path}: not a file that charrnn wrote") from None


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
    if not path.exists():
        raise CheckpointError(f"{path}: no such run; `charrnn train` makes one")
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise CheckpointError(f"{path}: not a run: there is no {MODEL} in it")
        return path / MODEL
    if not path.is_file():
        raise CheckpointError(f"{path}: not a file")
    return path


def load(run: str | Path) -> Run:
    """The model of a run, every part of it checked against its configuration. CheckpointError."""
    path = model_file(run)
    tensors, about = read(path)
    try:
        if about["kind"] != "model":
            raise CheckpointError(f"it holds no model but a {about['kind']} state; give the run's folder instead")
        config = ModelConfig.from_json(about["model"])
        tokenizer = Tokenizer.from_bytes(about["tokenizer"], tensors["tokenizer"].tobytes())
        if tokenizer.size != config.vocabulary:
            raise CheckpointError(f"its tokenizer has {tokenizer.size} tokens, its model {config.vocabulary}")
        check_tensors(tensors, {f"weights.{name}": shape for name, shape in config.shapes().items()}, "weights.", np.float32)
        unigram = tensors["unigram"]
        if unigram.shape != (config.vocabulary,) or unigram.dtype != np.int64:
            raise CheckpointError("its token counts do not fit its vocabulary")
        if not re.fullmatch(r"\d{1,20}", about["fingerprint_below"]) or tensors["fingerprint"].dtype != np.uint64:
            raise CheckpointError("its fingerprint is not valid")
        return Run(Path(run), config, TrainingConfig.from_json(about["training"]), tokenizer,
                   {name: tensors[f"weights.{name}"] for name in config.shapes()}, unigram,
                   (tensors["fingerprint"], int(about["fingerprint_below"])), dict(about["text"]), dict(about["metrics"]))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: incomplete: {error}") from None


def check_tensors(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], prefix: str, dtype: type) -> None:
    """Exact names below `prefix`, exact shapes and types, finite values. CheckpointError."""
    names = {name for name in tensors if name.startswith(prefix)}
    if names != set(shapes):
        raise CheckpointError(f"missing or unknown tensors: {sorted(names ^ set(shapes))[:4]}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise CheckpointError(f"{name} is {tensor.dtype} {tensor.shape}, expected {np.dtype(dtype)} {shape}")
        if math.prod(shape) and not np.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds a value that is not finite")

