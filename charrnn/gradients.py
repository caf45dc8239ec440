"""How far back the gradient reaches: of the loss at step t, what arrives at the states of step t − k (Bengio et al. 1994; Pascanu et
al. 2013); of a model that reads both ways also at those of t + k, in the tower that reads backward."""

from __future__ import annotations

import itertools
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
from charrnn.update import costs

REACH = 256  # steps back, at most
ROWS = 16  # places in the text that are averaged over


def written(run: Run, steps: int = REACH + 1, rows: int = ROWS, seed: int = 1) -> NDArray[np.int64]:
    """Tokens (steps, rows) that the model itself writes; of one that reads both ways, the tower that reads forward alone."""
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


def states(model: Model, layers: Iterable[Layer], inputs: Tensor) -> tuple[list[list[tuple[Tensor, ...]]], Tensor]:
    """inputs (T, B) → of each of `layers` its states at each step, kept in the graph, and the output (B, H) of the last one at the end."""
    config, seen, outputs = model.config, [], inputs
    for number, layer in enumerate(layers):
        if number:
            source = outputs @ layer.w_x + layer.b
        else:
            source = ((layer.w_x if model.embedding is None else model.embedding @ layer.w_x) + layer.b)[inputs]
        now, steps = model.zero_state(inputs.shape[1])[number], []
        for x in source:
            after = cells.step(torch, config.cell, x, now, layer.w_h, layer.b_h, activation=config.activation, reset=config.gru_reset)
            now = after[: cells.STATES[config.cell]]
            steps.append(after)
        seen.append(steps)
        outputs = torch.stack([step[0] for step in steps])
    return seen, outputs[-1]


def reaching(run: Run, tokens: NDArray[np.int64]) -> dict[str, Any]:
    """The norms ‖∂ℓ_t/∂S_{t−k}‖ of the loss ℓ_t of the last of tokens (T, B), k = 0 … T − 1, averaged over the rows.

    S is each layer's hidden state and an lstm's memory, `curves` has one entry for each of them: layer (from 1), state, `norms`, and
    `shares` of that at k = 0. Of a model that reads both ways ℓ_t is the loss of the middle token, `tower` says which tower's state it
    is, and k counts steps towards the text's beginning or its end.

    Clipping scales the whole gradient of an update; `clipped` are the norms times that factor, `scale`, for an update on these
    tokens, whose gradient has the norm `gradient_norm`.
    """
    model, both = Model(run.config).double(), run.config.bidirectional
    model.load(run.weights)
    tokens = tokens[: len(tokens) - 1 + len(tokens) % 2] if both else tokens  # so that there is a middle
    start = torch.full((1, tokens.shape[1]), run.config.vocabulary)
    targets = torch.from_numpy(tokens)
    before, after, place = torch.cat([start, targets[:-1]]), torch.cat([targets[1:], start]), len(tokens) // 2 if both else len(tokens) - 1
    towers, logits = list[Any](), model.output["b"]
    for layers, inputs, w in zip((model.layers, model.back), (before[: place + 1], after[place:].flip(0)), model.output["w"].split(
            run.config.hidden)):
        seen, output = states(model, cast(Iterable[Layer], layers), inputs)
        towers.append(seen)
        logits = logits + output @ w
    nats = torch.nn.functional.cross_entropy(logits, targets[place], reduction="sum")
    flat = [state for seen in towers for steps in seen for step in steps for state in step]
    found = torch.autograd.grad(nats, flat, allow_unused=True)
    norms = np.array([0.0 if part is None else float(part.norm(dim=1).mean()) for part in found])
    gradient_norm = of_update(model, before, targets, after)
    scale = min(1.0, run.training.clip / gradient_norm) if gradient_norm else 1.0
    kinds = max(1, cells.STATES[run.config.cell])
    norms = norms.reshape(len(towers), run.config.layers, place + 1, kinds)[:, :, ::-1]
    curves = []
    for tower, layer, kind in itertools.product(range(len(towers)), range(run.config.layers), range(kinds)):
        values = norms[tower, layer, :, kind]
        curves.append(({"tower": ("forward", "backward")[tower]} if both else {}) | {
            "layer": layer + 1, "state": ("hidden", "memory")[kind], "norms": values.tolist(),
            "shares": (values / values[0] if values[0] else values).tolist(), "clipped": (values * scale).tolist()})
    return {"run": str(run.path), "cell": run.config.cell, "reach": place, "rows": tokens.shape[1],
            "gradient_norm": gradient_norm, "clip": run.training.clip, "scale": scale, "curves": curves}


def of_update(model: Model, before: Tensor, targets: Tensor, after: Tensor) -> float:
    """The norm of the gradient that training would take of these targets (T, B) from the zero state, with nothing dropped."""
    state = model.zero_state(targets.shape[1])
    hidden, _ = model.both(before, after, state, state) if model.config.bidirectional else model.hidden(before, state)
    gradients = torch.autograd.grad(costs(model, hidden, targets, targets.numel())[1], list(model.parameters()), allow_unused=True)
    return float(sum(float((part**2).sum()) for part in gradients if part is not None) ** 0.5)


def of(run: Run, text: str | None) -> dict[str, Any]:
    """`reaching` over a text, or over what the model writes itself. DataError for an empty text."""
    steps = 2 * REACH + 1 if run.config.bidirectional else REACH + 1
    if text is None:
        return reaching(run, written(run, steps))
    ids = run.tokenizer.model_ids(run.tokenizer.encode(text))
    if not len(ids):
        raise DataError("the text is empty: there is nothing to read")
    return reaching(run, windows(ids, steps))
