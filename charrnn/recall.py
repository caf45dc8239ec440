"""Memory measured cleanly: a few keys are shown, noise follows for a known distance, then the keys are asked for, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn import optim, recipe
from charrnn.comparison import KINDS
from charrnn.config import ModelConfig
from charrnn.model import Model

KEYS, NOISE, SHOWN = 8, 8, 5
ASK = KEYS + NOISE
DISTANCES = (1, 4, 16, 64, 256)
ROWS, STEPS, HIDDEN = 64, 1000, 64


def sequences(rng: np.random.Generator, rows: int, distance: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(T, rows) tokens: SHOWN keys, `distance` tokens of noise, and the question as many times, each SHOWN + distance after its key; and
    the keys (SHOWN, rows)."""
    keys = rng.integers(KEYS, size=(SHOWN, rows))
    noise = rng.integers(KEYS, KEYS + NOISE, size=(distance, rows))
    return np.concatenate([keys, noise, np.full((SHOWN, rows), ASK)]), keys


def recall(*, steps: int | None = None, hidden: int | None = None, seed: int = 1) -> Iterator[dict[str, Any]]:
    """For each kind of model but the one that reads both ways, all of the parameters of an lstm of `hidden` units: `model`, `hidden`,
    `parameters`, `steps`, and `accuracy` by distance. A guess is right once in KEYS."""
    plain = ModelConfig(cell="lstm", hidden=hidden or HIDDEN, embedding=0, vocabulary=ASK + 1)
    for name, kind in KINDS.items():
        if kind.get("bidirectional"):
            continue
        config = recipe.of_size(ModelConfig(**kind, embedding=0, vocabulary=ASK + 1), plain.parameters(), 0)
        model = trained(config, steps or STEPS, seed)
        yield {"model": name, "hidden": config.hidden, "parameters": config.parameters(), "steps": steps or STEPS,
               "accuracy": {distance: accuracy(model, distance) for distance in DISTANCES}}


def trained(config: ModelConfig, steps: int, seed: int) -> Model:
    """A model that has learnt to recall over all DISTANCES, each step over one of them; the loss is that of the answer alone."""
    rng = np.random.default_rng(seed)
    model = Model(config, torch.Generator().manual_seed(seed))
    rate = recipe.lr(config.cell, config.hidden)
    optimizer = optim.Optimizer(model, rate, recipe.MATRIX_LR * rate)
    for step in range(steps):
        tokens, keys = sequences(rng, ROWS, int(rng.choice(DISTANCES)))
        loss = torch.nn.functional.cross_entropy(answers(model, tokens).flatten(0, 1), torch.from_numpy(keys).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optim.clip(model.parameters(), 1.0)
        optimizer.step(optim.schedule((step + 0.5) / steps))
    return model


def answers(model: Model, tokens: NDArray[np.int64]) -> torch.Tensor:
    """Logits (SHOWN, rows, V) at the questions."""
    hidden, _ = model.hidden(torch.from_numpy(tokens), model.zero_state(tokens.shape[1]))
    logits: torch.Tensor = hidden[-SHOWN:] @ model.output["w"] + model.output["b"]
    return logits


@torch.no_grad()
def accuracy(model: Model, distance: int, rows: int = 512) -> float:
    """The share of keys recalled over this distance, in sequences that no training saw."""
    tokens, keys = sequences(np.random.default_rng([distance, 2**31]), rows, distance)
    return float((answers(model, tokens).argmax(2).numpy() == keys).mean())
