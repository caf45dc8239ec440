"""charrnn: train a recurrent language model on a text, sample from it, measure it.

    run = charrnn.load("checkpoints/hello")
    print(charrnn.generate(run, "h", length=4, temperature=0))

Names are loaded when they are used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from charrnn.api import evaluate, generate, train
    from charrnn.checkpoint import load
    from charrnn.errors import CharRNNError

__all__ = ["CharRNNError", "__version__", "evaluate", "generate", "load", "train"]

_HOMES = {"evaluate": "api", "generate": "api", "train": "api", "load": "checkpoint", "CharRNNError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'charrnn' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"charrnn.{_HOMES[name]}"), name)
