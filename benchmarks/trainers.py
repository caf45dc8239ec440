"""charrnn's training side: its own Trainer, whose update is what is measured. To be imported after `ours.prepare`, as it loads torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks import ours, plain
from benchmarks.shapes import Shape
from charrnn import optim
from charrnn.batches import Window
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.recipe import Plan
from charrnn.text import open_text
from charrnn.trainer import Trainer


class AdamW(optim.Optimizer):
    """torch's AdamW on all parameters in the place of charrnn's optimizer: with the plain side's rate, and fused, as charrnn has it."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.adamw = torch.optim.AdamW(self.parameters, lr=plain.LR, fused=True)

    def step(self, share: float) -> None:
        self.adamw.step()
        for parameter in self.parameters:
            parameter.grad = None


def trainer(shape: Shape, reset: str = "after", *, own: bool = False, clip: float = plain.CLIP, precision: str = "float32") -> Trainer:
    """A trainer on a text of drawn characters; with its `own` optimizer, or with AdamW on everything as the plain side has it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.txt")
        path.write_text("".join(ours.SYMBOLS[n] for n in ours.tokens(shape, 6 * shape.rows * shape.window)))
        corpus = prepare(open_text([path]), level="char", cache=None)
    plan = Plan(steps=10**6, batch=shape.rows, window=shape.window, lr=plain.LR, matrix_lr=plain.LR, evaluate_every=1,
                precision=precision)
    config = TrainingConfig(cell=shape.cell, gru_reset=reset if shape.cell == "gru" else "before", clip=clip)
    made = Trainer(corpus, config, ours.config(shape, reset), plan, torch.device("cpu"))
    if not own:
        made.optimizer = AdamW(made.model)
    return made


def windows(shape: Shape, count: int = 4) -> list[Window]:
    """The plain side's windows as charrnn's; the state is carried from the one before, as there."""
    return [Window(inputs, targets, fresh=False, after=targets[:0]) for inputs, targets in ours.windows(shape, count)]
