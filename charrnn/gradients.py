"""How far back the gradient reaches: of the loss at step t, what arrives at the states of step t − k (Bengio et al. 1994; Pascanu et
al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrnn import cells
from charrnn.checkpoint import Run
from charrnn.errors import DataError
from charrnn.model import Layer, Model
from charrnn.runtime import Runtime
from charrnn.sampling import draw, softmax
from charrnn.trace import refuse_both_ways

REACH = 256  # steps back, at most
ROWS = 16  # places in the text that are averaged over


def written(run: Run, steps: int = REACH + 1, rows: int = ROWS, seed: int = 1) -> NDArray[np.int64]:
    """Tokens (steps, rows) that the model itself writes."""
    uniform, runtime = np.random.Generator(np.random.PCG64(seed)).random, Runtime(run.config, run.weights)
    tokens, state = np.full((1, rows), run.tokenizer.start), runtime.zero_state(rows)
    for _ in range(steps):
        logits, state = runtime.step(tokens[-1], state)
        if run.tokenizer.escape is not None:
            logits[:, run.tokenizer.escape] = -np.inf
        tokens = np.concatenate([tokens, draw(softmax(logits), uniform(rows))[None]])
    return tokens[1:]


def windows(ids: NDArray[np.integer], steps: int = REACH + 1, rows: int = ROWS) -> NDArray[np.int64]:
    """Tokens (steps, rows) from all over a text; fewer where the text is short."""
    steps = min(steps, len(ids))
    rows = max(1, min(rows, len(ids) // steps))
    starts = np.linspace(0, len(ids) - steps, rows).astype(int)
    return np.stack([ids[start : start + steps] for start in starts], axis=1).astype(np.int64)


def states(model: Model, inputs: Tensor) -> tuple[list[list[tuple[Tensor, ...]]], Tensor]:
    """inputs (T, B) → of each layer its states at each step, kept in the graph, and the outputs (T, B, H) of the last layer."""
    config, layers, outputs = model.config, [], inputs
    for number, layer in enumerate(cast(Iterable[Layer], model.layers)):
        if number:
            source = outputs @ layer.w_x + layer.b
        else:
            source = ((layer.w_x if model.embedding is None else model.embedding @ layer.w_x) + layer.b)[inputs]
        now, steps = model.zero_state(inputs.shape[1])[number], []
        for x in source:
            after = cells.step(torch, config.cell, x, now, layer.w_h, layer.b_h, activation=config.activation, reset=config.gru_reset)
            now = after[: cells.STATES[config.cell]]
            steps.append(after)
        layers.append(steps)
        outputs = torch.stack([step[0] for step in steps])
    return layers, outputs


def reaching(run: Run, tokens: NDArray[np.int64]) -> dict[str, Any]:
    """The norms ‖∂ℓ_t/∂S_{t−k}‖ of the last step's loss ℓ_t, k = 0 … T − 1, averaged over the rows of tokens (T, B).

    S is each layer's hidden state and an lstm's memory, `curves` has one entry for each of them: layer (from 1), state, `norms`, and
    `shares` of that at k = 0. Clipping scales the whole gradient of an update; `clipped` are the norms times that factor, `scale`,
    for an update on these tokens, whose gradient has the norm `gradient_norm`.
    """
    refuse_both_ways(run)
    model = Model(run.config).double()
    model.load(run.weights)
    start = np.full((1, tokens.shape[1]), run.config.vocabulary)
    inputs, targets = torch.from_numpy(np.concatenate([start, tokens[:-1]])), torch.from_numpy(tokens)
    layers, outputs = states(model, inputs)
    nats = torch.nn.functional.cross_entropy((outputs @ model.output["w"] + model.output["b"]).flatten(0, 1), targets.flatten(),
                                             reduction="none").view(targets.shape)
    flat = [state for steps in layers for step in steps for state in step]
    found = torch.autograd.grad(nats[-1].sum(), flat, retain_graph=True, allow_unused=True)
    norms = np.array([0.0 if part is None else float(part.norm(dim=1).mean()) for part in found])
    whole = torch.autograd.grad(nats.mean(), list(model.parameters()), allow_unused=True)
    gradient_norm = float(sum(float((part**2).sum()) for part in whole if part is not None) ** 0.5)
    scale = min(1.0, run.training.clip / gradient_norm) if gradient_norm else 1.0
    kinds = max(1, cells.STATES[run.config.cell])
    curves = []
    for layer, part in enumerate(norms.reshape(len(layers), len(tokens), kinds)[:, ::-1], 1):
        for kind in range(kinds):
            values = part[:, kind]
            curves.append({"layer": layer, "state": ("hidden", "memory")[kind], "norms": values.tolist(),
                           "shares": (values / values[0] if values[0] else values).tolist(), "clipped": (values * scale).tolist()})
    return {"run": str(run.path), "cell": run.config.cell, "reach": len(tokens) - 1, "rows": tokens.shape[1],
            "gradient_norm": gradient_norm, "clip": run.training.clip, "scale": scale, "curves": curves}


def of(run: Run, text: str | None) -> dict[str, Any]:
    """`reaching` over a text, or over what the model writes itself. DataError for an empty text."""
    if text is None:
        return reaching(run, written(run))
    ids = run.tokenizer.model_ids(run.tokenizer.encode(text))
    if not len(ids):
        raise DataError("the text is empty: there is nothing to read")
    return reaching(run, windows(ids))
