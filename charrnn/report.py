"""A run as one HTML page that needs nothing but itself: curves, samples, surprise, gates and states, the cell to step through."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import drawings
from charrnn.checkpoint import Run, recorded
from charrnn.config import SamplingConfig
from charrnn.errors import DataError, UsageError
from charrnn.inspection import describe
from charrnn.novelty import parts
from charrnn.runtime import Runtime
from charrnn.sampling import generate, softmax
from charrnn.trace import Reading, read, trace
from charrnn.visible import figure, visible

READ = 600  # characters of the surprise map
SENTENCE = 72  # tokens that the cell is stepped through
UNITS = 24  # shown of each layer, or fewer where there are many layers
LIKELY = 6  # alternatives of each token
SHOWN = 8  # samples of the training, at most

EQUATIONS = {
    "mlp": ["H_t = φ(X_t W_xh + b_h)"],
    "rnn": ["H_t = φ(X_t W_xh + H_{t−1} W_hh + b_h)"],
    "gru before": ["R_t = σ(X_t W_xr + H_{t−1} W_hr + b_r)", "Z_t = σ(X_t W_xz + H_{t−1} W_hz + b_z)",
                   "H̃_t = tanh(X_t W_xh + (R_t ⊙ H_{t−1}) W_hh + b_h)", "H_t = Z_t ⊙ H_{t−1} + (1 − Z_t) ⊙ H̃_t"],
    "gru after": ["R_t = σ(X_t W_xr + H_{t−1} W_hr + b_r)", "Z_t = σ(X_t W_xz + H_{t−1} W_hz + b_z)",
                  "H̃_t = tanh(X_t W_xh + b_xh + R_t ⊙ (H_{t−1} W_hh + b_hh))", "H_t = Z_t ⊙ H_{t−1} + (1 − Z_t) ⊙ H̃_t"],
    "lstm": ["I_t = σ(X_t W_xi + H_{t−1} W_hi + b_i)", "F_t = σ(X_t W_xf + H_{t−1} W_hf + b_f)",
             "C̃_t = tanh(X_t W_xc + H_{t−1} W_hc + b_c)", "O_t = σ(X_t W_xo + H_{t−1} W_ho + b_o)",
             "C_t = F_t ⊙ C_{t−1} + I_t ⊙ C̃_t", "H_t = O_t ⊙ tanh(C_t)"],
}
SAYS = {"hidden": "hidden state H", "memory": "memory C", "reset": "reset gate R", "update": "update gate Z", "candidate": "candidate",
        "input": "input gate I", "forget": "forget gate F", "output": "output gate O"}


def page(run: Run, text: str | None = None, *, gradients: dict[str, Any] | None = None) -> str:
    """The page for a run reading `text` (by default the head of what was held out, or what it writes itself); `gradients` as
    `gradients.of` gives them."""
    told, source = own_text(run) if text is None else (text, "the text given")
    reading = read(run, told, alternatives=LIKELY)
    style, script = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    data = json.dumps({"tokens": tokens(reading), "inner": inner(reading)}, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    body = "".join([head(run), curve(run), samples(run), surprise(run, source), stepper(run), maps(),
                    reach(gradients), equations(run), settings(run)])
    return PAGE.format(policy=policy, name=safe(run.text["name"]), style=style, body=body, data=data, script=script)


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{name}: a charrnn report</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def own_text(run: Run) -> tuple[str, str]:
    """The head of the text that was held out where it is at hand, else what the run writes; and which of the two it is."""
    try:
        _, held_out = parts(run)
    except DataError:
        held_out = ""
    if held_out.strip():
        return held_out[:READ], "the beginning of the part that the model never saw"
    if run.config.bidirectional:
        raise UsageError(f"{run.path}: the text that it learnt is not where it was, and a model that reads both ways writes none: give "
                         "--text")
    written = "".join(piece.text for piece in generate(run, SamplingConfig(length=READ, seed=1)))
    return written[:READ] or run.tokenizer.symbol(0), "what the model writes itself"


def safe(text: object) -> str:
    """Text for HTML, with control characters shown."""
    return escape(visible(str(text), keep="\n"))


def in_line(text: str) -> str:
    """Text whose line ends are signs; more fonts have this one than that of a line feed."""
    return visible(text.replace("\n", "↵"), keep="")


def symbol(reading: Reading, token: int) -> str:
    """The name of a token."""
    return in_line(reading.run.tokenizer.symbol(token))


def tokens(reading: Reading) -> list[dict[str, Any]]:
    """The surprise map: whole characters, the nats they cost, and what was held likely in their place."""
    return [{"text": visible(text, keep="\n"), "nats": round(float(reading.nats[first:last].sum()), 3),
             "likely": likely(reading, reading.likely[first], reading.p[first])} for text, first, last in reading.spans()]


def likely(reading: Reading, order: NDArray[np.int64], p: NDArray[np.float64]) -> list[tuple[str, float]]:
    """Symbols and their probabilities."""
    return [(symbol(reading, token), round(share, 4)) for token, share in zip(order.tolist(), p.tolist())]


def inner(reading: Reading) -> dict[str, Any]:
    """Gates and states over the first tokens, and what is expected at each of them and after them."""
    run, steps = reading.run, min(SENTENCE, len(reading.ids))
    expected = [likely(reading, order, p) for order, p in zip(reading.likely[: steps + 1], reading.p[: steps + 1])]
    if steps == len(reading.ids) and not reading.back:  # what would follow the text
        p = softmax(reading.layers[-1]["hidden"][-1:] @ run.weights["output.w"] + run.weights["output.b"])[0]
        best = np.argsort(-p, kind="stable")[:LIKELY]
        expected.append(likely(reading, best, p[best]))
    layers = [shown(reading, backward, number, steps) for backward, tower in ((False, reading.layers), (True, reading.back))
              for number in range(len(tower))]
    return {"cell": run.config.cell, "reset": run.config.gru_reset, "both": bool(reading.back), "steps": steps,
            "texts": [in_line(text) or "·" for text in reading.texts[:steps]], "nats": np.round(reading.nats[:steps], 3).tolist(),
            "expected": expected, "layers": layers, "says": SAYS}


def shown(reading: Reading, backward: bool, number: int, steps: int) -> dict[str, Any]:
    """A layer's values over the first tokens: of the units that change most, and `before`: the states that each step began with."""
    run, way = reading.run, -1 if backward else 1
    layer = (reading.back if backward else reading.layers)[number]
    chosen = np.sort(np.argsort(-layer["hidden"][:steps].std(axis=0), kind="stable")[: max(4, UNITS // len(reading.layers + reading.back))])
    runtime = Runtime(run.config, run.weights, backward=backward)
    begun = trace(runtime, np.array([[run.tokenizer.start]]))[number]
    before: dict[str, NDArray[Any]] = {name: np.concatenate([begun[name][0], layer[name][::way]])[:-1][::way][:steps]
                                          for name in ("hidden", "memory") if name in layer}
    if run.config.cell == "gru":  # what the box of the weights in the drawing puts out
        H, after = run.config.hidden, run.config.gru_reset == "after"
        w = runtime.weights[f"layers.{number}.w_h"][:, 2 * H :]
        before["product"] = (before["hidden"] @ w + runtime.weights[f"layers.{number}.b_h"] if after else
                             (layer["reset"][:steps] * before["hidden"]) @ w)

    def rows(value: NDArray[Any]) -> list[list[float]]:
        found: list[list[float]] = np.round(value[:steps, chosen].T.astype(np.float64), 4).tolist()
        return found

    return {"name": f"layer {number + 1}" + (f", {'back' if backward else 'for'}ward" if reading.back else ""), "way": way,
            "units": (chosen + 1).tolist(), "values": {name: rows(value) for name, value in layer.items()},
            "before": {name: rows(value) for name, value in before.items()}}


def section(title: str, content: str, *, say: str = "", kind: str = "", name: str = "") -> str:
    about = f'<p class="say">{say}</p>' if say else ""
    return f'<section class="{kind}"{f" id={name}" if name else ""}>\n<h2>{title}</h2>\n{about}{content}\n</section>\n'


def live(hint: str) -> str:
    """How to use what moves; left out on paper."""
    return f"<span class=live>{hint}</span>"


def scrolled(drawn: str) -> str:
    """A picture that keeps its size where the page is narrow, so that its words can be read."""
    return f"<div class=scroll>{drawn}</div>"


def head(run: Run) -> str:
    config, best = run.config, run.metrics
    nats, bits = best.get("validation_nats_per_character"), best.get("validation_bits_per_character")
    per_token = best.get("validation_nats_per_token")
    both = "pseudo-" if config.bidirectional else ""
    facts = [(f"{both}bits a character", figure(bits)), (f"{both}nats a character", figure(nats)),
             (f"{both}perplexity a token", figure(math.exp(per_token) if per_token is not None else None, 2)),
             ("parameters", f"{config.parameters():,}"), ("characters of text", f"{run.text['characters']:,}")]
    where = "on the part that it never saw" if run.text["held_out"] else "on the text that it learnt from"
    told = "".join(f"<div><b>{value}</b><span>{label}</span></div>" for label, value in facts)
    return (f"<header>\n<h1>{safe(run.text['name'])}</h1>\n<p class=soft>{config.cell}, {config.layers} × {config.hidden}"
            f"{' each way' if both else ''}, {run.tokenizer.level} level, {config.vocabulary:,} tokens; figures {where}</p>\n"
            f"<div class=facts>{told}</div>\n</header>\n")


def curve(run: Run) -> str:
    points = run.metrics["curve"]
    if len(points) < 2:
        return ""
    drawn = drawings.losses(points, f"{'pseudo-' if run.config.bidirectional else ''}nats a character")
    return section("How it learnt", scrolled(drawn), say="The loss while training, on the text that it reads and on the part held "
                   "out. The circle is the model that was kept.")


def samples(run: Run) -> str:
    rows = recorded(run.path)
    if not rows:
        return ""
    chosen = rows if len(rows) <= SHOWN else [rows[round(n * (len(rows) - 1) / (SHOWN - 1))] for n in range(SHOWN)]
    told = "".join(f"<div class=sample><b>step {row['step']:,}</b>{safe(row['text'].strip())}</div>" for row in chosen)
    return section("What it wrote as it learnt", told, kind="long")


def surprise(run: Run, source: str) -> str:
    piece = "character" if run.tokenizer.level in ("char", "byte") else "token"
    content = ("<div class=text id=surprise></div><div class=legend>expected <i></i> 6 nats and more</div>"
               "<div class=card aria-live=polite><div><div class=big id=chosen></div><div class=soft id=paid></div></div>"
               "<div><div class=soft>held most likely there</div><div class=bars id=alternatives></div></div></div>")
    led = "all others led to expect it" if run.config.bidirectional else "it was expected"
    return section("Where it is surprised", content, kind="long", say=f"Each {piece} of {source}, the stronger its colour the less {led}. "
                   f"{live('Point at one, or Tab here and use the arrow keys.')}")


def stepper(run: Run) -> str:
    controls = ('<div class=controls><button type=button id=back aria-label="one step back">←</button>'
                '<button type=button id=play>Play</button><button type=button id=on aria-label="one step on">→</button>'
                '<input type=range id=place min=0 value=0 aria-label="step"><span class=soft id=step></span>'
                '<select id=cell-layer aria-label="layer"></select><select id=cell-unit aria-label="unit"></select></div>')
    cell = ('<div class=scroll id=cell tabindex=0 role=group aria-label="The cell; arrow keys step through the text">'
            f"{drawings.cell(run.config.cell, run.config.activation, run.config.gru_reset)}</div>")
    content = (f"<div class=text id=sentence></div>{controls}{cell}<div class=sum id=sum aria-live=polite></div>"
               "<p class=soft id=expects></p><div class=bars id=next></div>")
    return section("The cell at work", content, name="stepper", say="One unit of the model, with its own numbers, one step at a time: "
                   "gates fill as they open, and a line is as thick as what passes through it. The text is coloured by what the unit holds "
                   f"after each step. {live('Click in it, move the slider, or use the arrow keys.')}")


def maps() -> str:
    content = ("<div class=controls><select id=map-layer aria-label=layer></select><select id=map-name aria-label=values></select>"
               "</div><div class=scroll><svg class=map id=map role=img></svg></div>"
               "<div class=legend id=map-legend><i></i> <span id=map-scale></span></div>")
    return section("Gates and states", content, say="A row is a unit, a column the step that reads what stands below it. These are "
                   "the units that change most.")


def reach(gradients: dict[str, Any] | None) -> str:
    if not gradients or gradients["reach"] < 2:
        return ""
    norm, scale = gradients["gradient_norm"], gradients["scale"]
    clip = f"{gradients['clip']:g}"
    clipped = (f"An update's gradient on these tokens has the norm {figure(norm)}, below the limit of {clip}: nothing is clipped."
               if scale == 1 else
               f"Clipping takes an update's gradient from the norm {figure(norm)} to {clip}, near and far alike (dashed).")
    where = "before it (forward) or after it (backward)" if "tower" in gradients["curves"][0] else "before"
    drawn = scrolled(drawings.reach(gradients["curves"], scale))
    return section("How far back it learns", drawn, say="Of the gradient of the loss at one step, "
                   f"the share that reaches the states so many steps {where}; {drawings.places(gradients['rows'])}. {clipped}")


def equations(run: Run) -> str:
    config = run.config
    lines = EQUATIONS[f"gru {config.gru_reset}" if config.cell == "gru" else config.cell]
    output = "p(token t) = softmax([H→_{t−1}, H←_{t+1}] W_hq + b_q)" if config.bidirectional else "p(next) = softmax(H_t W_hq + b_q)"
    told = "<br>".join(indexed(one.replace("φ", config.activation)) for one in (*lines, output))
    rows = "".join(f"<tr><td><code>{escape(name)}</code><td class=n>{' × '.join(map(str, shape))}<td class=n>{math.prod(shape):,}"
                   for name, shape in config.shapes().items())
    table = f"<table><tr><th>weights<th class=n>shape<th class=n>numbers{rows}<tr><th>all<td><td class=n>{config.parameters():,}</table>"
    return section("Its equations and its weights", f"<div class=two><div class=equations>{told}</div><div>{table}</div></div>", say="X is "
                   "what is read, H the hidden state, C the memory, ⊙ the product by element. The weights of all gates lie side by side.")


def indexed(equation: str) -> str:
    """An equation with its indices set low."""
    return re.sub(r"_(\{[^}]*\}|[a-z]+)", lambda match: f"<sub>{match[1].strip('{}')}</sub>", escape(equation))


def settings(run: Run) -> str:
    found = describe(run)
    rows: dict[str, Any] = {"run": run.path, "text": f"{run.text['name']}, SHA-256 {run.text['digest']}"}
    for part in ("model", "training", "plan"):  # what was planned takes the place of what was asked for
        rows |= found["configuration"][part]
    told = "".join(f"<tr><th>{safe(key.replace('_', ' '))}<td>{safe(listed(value))}" for key, value in rows.items())
    return section("Settings", f"<div class=columns><table>{told}</table></div>", kind="long")


def listed(value: Any) -> str:
    """A setting in a table's cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence | Iterable) and not isinstance(value, str | Path):
        return ", ".join(map(listed, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
