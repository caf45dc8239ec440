"""What is in a run, as plain values."""

from __future__ import annotations

import math
from typing import Any

from charrnn.checkpoint import METRICS, MODEL, RESUME, SAMPLES, Run

SHOWN = 200  # symbols of the vocabulary that are listed


def describe(run: Run) -> dict[str, Any]:
    """Text, vocabulary, configuration, parameters by layer, best figures, files on disk and the curve, ready for JSON."""
    tokenizer = run.tokenizer
    best = {key: value for key, value in run.metrics.items() if key not in ("curve", "plan")}
    asked = {key: value for key, value in run.training.as_json().items() if value is not None and key not in run.config.as_json()}
    places = [run.path / name for name in (MODEL, RESUME, METRICS, SAMPLES)] if run.path.is_dir() else [run.path]
    files = [(place.name, place.stat().st_size) for place in places if place.is_file()]
    symbols = [tokenizer.symbol(token) for token in range(min(tokenizer.size, SHOWN))]
    return {
        "run": str(run.path),
        "text": run.text,
        "vocabulary": {"level": tokenizer.level, "size": tokenizer.size, "symbols": symbols},
        "configuration": {"model": run.config.as_json(), "training": asked, "plan": run.metrics["plan"]},
        "parameters": [(name, shape, math.prod(shape)) for name, shape in run.config.shapes().items()],
        "best": best,
        "files": files,
        "curve": run.metrics["curve"],
    }
