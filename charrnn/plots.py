"""The pictures of a report as one figure by matplotlib, which is needed for nothing else: PNG or SVG."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.drawings import LOWEST, named
from charrnn.errors import UsageError
from charrnn.report import SAYS
from charrnn.trace import Reading
from charrnn.visible import visible

KINDS = (".png", ".svg")
STEPS = 60  # tokens of the surprise and of the map
UNITS = 20  # rows of the map
WORD = 16  # characters of a token that its label has


def figure(reading: Reading, gradients: dict[str, Any], path: Path) -> bytes:
    """Losses, the reach of the gradient, surprise, and the last layer's states and gates, in the format that `path` ends with. UsageError
    for another one, and where matplotlib is not installed."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path}: name a file that ends with {' or '.join(KINDS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib") from None
    run, unit, out = reading.run, "pseudo-" if reading.back else "", io.BytesIO()
    steps = min(STEPS, len(reading.ids))
    letters = [visible(text.replace("\n", "↵").replace(" ", "␣"), keep="")[:WORD] for text in reading.texts[:steps]]
    way = {"rotation": 90} if max(map(len, letters)) > 2 else {}
    kept: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "charrnn"}
    maps = mapped(reading)
    rows = 1 + (len(maps) + 2) // 2
    with matplotlib.rc_context(kept), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks is shown as boxes
        drawn = Figure(figsize=(11, 4 * rows), layout="constrained")
        losses, reach, surprise, *others = (drawn.add_subplot(rows, 2, place + 1) for place in range(3 + len(maps)))
        size = f"{run.config.layers} × {run.config.hidden}{' each way' if reading.back else ''}"
        drawn.suptitle(visible(f"{run.text['name']}: {run.config.cell} {size}", keep=""), parse_math=False)
        curve = np.array(run.metrics["curve"], float).reshape(-1, 3)
        losses.plot(curve[:, 0], curve[:, 1], label="training")
        losses.plot(curve[:, 0], curve[:, 2], label="held out")
        losses.set(title="How it learnt", xlabel="step", ylabel=f"{unit}nats a character")
        for number, one in enumerate(gradients["curves"]):
            shares = np.array(one["shares"])
            reach.semilogy(np.where(shares > LOWEST, shares, np.nan), color=f"C{number}", marker=".", markevery=[0], label=named(one))
            if gradients["scale"] < 1:
                clipped = gradients["scale"] * shares
                reach.semilogy(np.where(clipped > LOWEST, clipped, np.nan), "--", color=f"C{number}")
        reach.set(title="How far back it learns" + (" (dashed: clipped)" if gradients["scale"] < 1 else ""), ylabel="share of the gradient",
                  xlabel="steps away" if reading.back else "steps back")
        for panel in (losses, reach):
            panel.legend(frameon=False)
            panel.spines[["top", "right"]].set_visible(False)
        surprise.bar(np.arange(steps), reading.nats[:steps], color="tab:orange")
        surprise.spines[["top", "right"]].set_visible(False)
        surprise.set(title="Where it is surprised", ylabel=f"{unit}nats", xlim=(-0.6, steps - 0.4))
        for panel, (says, values, units, signed) in zip(others, maps):
            most = float(np.abs(values).max()) or 1.0 if signed else 1.0
            image = panel.imshow(values, aspect="auto", cmap="RdBu_r" if signed else "Greens", vmin=-most if signed else 0, vmax=most,
                                 interpolation="nearest")
            panel.set(title=says, ylabel="unit")
            panel.set_yticks(np.arange(len(units)), [str(unit + 1) for unit in units], fontsize=7)
            drawn.colorbar(image, ax=panel)
        for panel in (surprise, *others):
            panel.set_xticks(np.arange(steps), letters, fontsize=7, family="monospace", parse_math=False, **way)
        drawn.savefig(out, format=path.suffix[1:].lower(), dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    return out.getvalue()


def mapped(reading: Reading) -> list[tuple[str, Any, Any, bool]]:
    """The maps of the last layer, of either tower: title, values (units, steps), which units, whether they may be negative. Its units are
    those whose states change most."""
    found = []
    for tower, side in ((reading.layers, ", forward"), (reading.back, ", backward")):
        if not tower:
            continue
        chosen = np.sort(np.argsort(-tower[-1]["hidden"][:STEPS].std(axis=0), kind="stable")[:UNITS])
        for name, value in tower[-1].items():
            if name != "candidate":
                says = SAYS[name][0].upper() + SAYS[name][1:]
                found.append((f"{says}, layer {len(tower)}{side if reading.back else ''}", value[:STEPS, chosen].T, chosen,
                              name in ("hidden", "memory")))
    return found
