"""charrnn's side as its commands do it, and the tokens that both sides read. Nothing here loads torch."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import Shape
from charrnn import machine
from charrnn.checkpoint import Run
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.tokens import CharTokenizer

SYMBOLS = string.digits + string.ascii_letters + string.punctuation + " "


def config(shape: Shape, reset: str = "after") -> ModelConfig:
    """The shape as charrnn's configuration."""
    return ModelConfig(cell=shape.cell, hidden=shape.hidden, layers=shape.layers, embedding=shape.embedding, gru_reset=reset,
                       vocabulary=shape.vocabulary)


def prepare() -> None:
    """What the training command does before it loads torch."""
    machine.prepare()


def tokens(shape: Shape, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Drawn tokens, some of them far more common than others, as in a text; all but the last id, charrnn's symbol for unknown ones."""
    share = 1.0 / np.arange(1, shape.vocabulary)
    drawn = np.random.default_rng(seed).choice(shape.vocabulary - 1, count, p=share / share.sum())
    drawn[: shape.vocabulary - 1] = np.arange(min(shape.vocabulary - 1, count))  # each of them at least once
    return drawn.astype(np.int64)


def windows(shape: Shape, count: int = 4) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(inputs, targets), each (T, B), for both sides alike."""
    T, B = shape.window, shape.rows
    drawn = tokens(shape, B * (T * count + 1)).reshape(B, T * count + 1).T
    return [(drawn[n * T : (n + 1) * T].copy(), drawn[n * T + 1 : (n + 1) * T + 1].copy()) for n in range(count)]


def run(shape: Shape, path: Path = Path("random"), reset: str = "after", tokenizer: CharTokenizer | None = None) -> Run:
    """A run with weights that nobody trained."""
    tokenizer = tokenizer or CharTokenizer("".join(sorted(SYMBOLS[: shape.vocabulary - 1])))
    made = ModelConfig(**{**config(shape, reset).as_json(), "vocabulary": tokenizer.size})
    rng = np.random.default_rng(1)
    weights = {name: (rng.standard_normal(size) / np.sqrt(shape.hidden)).astype(np.float32) for name, size in made.shapes().items()}
    text = {"name": "none", "digest": "0" * 64, "characters": 1, "held_out": False, "training_tokens": 1, "training_characters": 1,
            "validation_tokens": 1, "validation_characters": 1}
    return Run(path, made, TrainingConfig(cell=shape.cell), tokenizer, weights, np.ones(tokenizer.size, np.int64),
               (np.zeros(0, np.uint64), 1), text, {"step": 0, "curve": [], "plan": {}})


def write(model: Run, streams: int = 1, length: int = 10**9, seed: int = 0) -> Iterator[Any]:
    """charrnn's pieces of text, drawn from the model's own distribution, as the plain loop draws them."""
    from charrnn.sampling import generate

    return generate(model, SamplingConfig(length=length, temperature=1.0, count=streams, seed=seed))
