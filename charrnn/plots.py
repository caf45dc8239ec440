"""The pictures of a report as one figure by matplotlib, which is needed for nothing else: PNG or SVG."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.errors import UsageError
from charrnn.trace import Reading
from charrnn.visible import visible

KINDS = (".png", ".svg")
STEPS = 60  # tokens of the surprise and of the map
UNITS = 20  # rows of the map


def figure(reading: Reading, gradients: dict[str, Any], path: Path) -> bytes:
    """Losses, surprise, the last layer's states and the reach of the gradient, in the format that `path` ends with. UsageError for
    another one, and where matplotlib is not installed."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path}: name a file that ends with {' or '.join(KINDS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib") from None
    run, out = reading.run, io.BytesIO()
    steps = min(STEPS, len(reading.ids))
    letters = [visible(text.replace("\n", "↵").replace(" ", "␣"), keep="") for text in reading.texts[:steps]]
    kept: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "charrnn"}
    with matplotlib.rc_context(kept), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks is shown as boxes
        drawn = Figure(figsize=(11, 8), layout="constrained")
        (losses, reach), (surprise, states) = drawn.subplots(2, 2)
        title = visible(f"{run.text['name']}: {run.config.cell} {run.config.layers} × {run.config.hidden}", keep="")
        drawn.suptitle(title, parse_math=False)
        curve = np.array(run.metrics["curve"], float).reshape(-1, 3)
        losses.plot(curve[:, 0], curve[:, 1], label="training")
        losses.plot(curve[:, 0], curve[:, 2], label="held out")
        losses.set(title="How it learnt", xlabel="step", ylabel="nats a character")
        for one in gradients["curves"]:
            reach.semilogy(np.maximum(one["shares"], 1e-12), label=f"layer {one['layer']} {one['state']}")
        reach.set(title="How far back it learns", xlabel="steps back", ylabel="share of the gradient")
        for panel in (losses, reach):
            panel.legend(frameon=False)
            panel.spines[["top", "right"]].set_visible(False)
        surprise.bar(np.arange(steps), reading.nats[:steps], color="tab:orange")
        surprise.spines[["top", "right"]].set_visible(False)
        surprise.set(title="Where it is surprised", ylabel="nats", xlim=(-0.6, steps - 0.4))
        values = reading.layers[-1]["hidden"][:steps]
        units = np.sort(np.argsort(-values.std(axis=0), kind="stable")[:UNITS])
        most = float(np.abs(values[:, units]).max()) or 1.0
        image = states.imshow(values[:, units].T, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        states.set(title=f"Hidden states of layer {len(reading.layers)}", ylabel="unit")
        states.set_yticks(np.arange(len(units)), [str(unit + 1) for unit in units], fontsize=7)
        drawn.colorbar(image, ax=states)
        for panel in (surprise, states):
            panel.set_xticks(np.arange(steps), letters, fontsize=7, family="monospace", parse_math=False)
        drawn.savefig(out, format=path.suffix[1:].lower(), dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    return out.getvalue()
