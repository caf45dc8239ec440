"""Small runs with random weights, for tests that look inside a model."""

from pathlib import Path

import numpy as np
import torch

from charrnn.checkpoint import Run
from charrnn.config import ModelConfig, TrainingConfig
from charrnn.model import Model
from charrnn.tokenizer import build

SHAPES = [
    {"cell": "lstm", "layers": 2, "hidden": 7, "embedding": 3},
    {"cell": "gru", "layers": 2, "hidden": 6, "embedding": 0},
    {"cell": "gru", "layers": 1, "hidden": 5, "embedding": 4, "gru_reset": "after"},
    {"cell": "rnn", "layers": 3, "hidden": 6, "embedding": 2, "activation": "relu"},
    {"cell": "mlp", "layers": 2, "hidden": 5, "embedding": 3},
]
NAMES = [f"{shape['cell']}-{shape['layers']}-{shape.get('gru_reset', '')}" for shape in SHAPES]
BOTH = [
    {"cell": "lstm", "layers": 2, "hidden": 6, "embedding": 3, "bidirectional": True},
    {"cell": "gru", "layers": 1, "hidden": 5, "embedding": 0, "gru_reset": "after", "bidirectional": True},
    {"cell": "gru", "layers": 2, "hidden": 7, "embedding": 2, "bidirectional": True},
    {"cell": "mlp", "layers": 1, "hidden": 6, "embedding": 4, "bidirectional": True},
]
ALL = SHAPES + BOTH
ALL_NAMES = [*NAMES, *(f"both-{shape['cell']}-{shape['layers']}-{shape.get('gru_reset', '')}" for shape in BOTH)]


def random_run(text: str, level: str = "char", seed: int = 0, scale: float = 0.4, **shape) -> Run:
    """A run over the vocabulary of `text` whose weights were drawn, not learnt."""
    tokenizer = build(level, lambda: [text], 300 if level in ("word", "subword") else None)
    config = ModelConfig(vocabulary=tokenizer.size, **shape)
    model = Model(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=generator)
    ids = tokenizer.model_ids(tokenizer.encode(text))
    facts = {"name": "small", "digest": "0" * 64, "characters": len(text), "held_out": False, "training_tokens": len(ids),
             "training_characters": len(text), "validation_tokens": len(ids), "validation_characters": len(text)}
    return Run(Path("small"), config, TrainingConfig(level=level), tokenizer, model.weights(),
               np.bincount(ids, minlength=tokenizer.size), (np.empty(0, np.uint64), 1), facts, {"step": 0, "curve": [], "plan": {}})


def exact_model(config):
    """A fresh model in float64, its biases drawn as well, so that they matter."""
    made = Model(config, torch.Generator().manual_seed(3)).double()
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return made
