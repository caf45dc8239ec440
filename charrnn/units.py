"""Units that track something visible: inside quotes, the place in a line, digits. Each is found on one half of a text and scored on
the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import DataError
from charrnn.trace import Reading

TRIED = 8  # units whose threshold is sought, for each thing
SHORTEST = 200  # tokens

Floats = NDArray[np.float64]


def quoted(text: str) -> Floats:
    """1 between quotation marks, 0 outside; a blank line ends a quotation."""
    inside, out = False, []
    for before, character in zip(" " + text, text):
        if character == '"':
            inside = not inside
        elif character in "“«":
            inside = True
        elif character in "”»" or (character == before == "\n"):
            inside = False
        out.append(inside)
    return np.array(out, np.float64)


def bracketed(text: str) -> Floats:
    """1 between brackets of any kind, 0 outside; a blank line ends them."""
    depth, out = 0, []
    for before, character in zip(" " + text, text):
        depth += (character in "([{") - (depth > 0 and character in ")]}")
        depth = 0 if character == before == "\n" else depth
        out.append(depth > 0)
    return np.array(out, np.float64)


def since(text: str, mark: Callable[[str], bool]) -> Floats:
    """How many characters ago the last one was for which `mark` is true."""
    at = np.fromiter(map(mark, text), bool, len(text))
    places = np.arange(len(text))
    return (places - np.maximum.accumulate(np.where(at, places, -1))).astype(np.float64)


def each(text: str, mark: Callable[[str], bool]) -> Floats:
    """1 where `mark` is true of the character just read."""
    return np.fromiter(map(mark, text), bool, len(text)).astype(np.float64)


FEATURES: dict[str, Callable[[str], Floats]] = {
    "inside quotes": quoted,
    "inside brackets": bracketed,
    "place in the line": lambda text: since(text, "\n".__eq__),
    "place in the word": lambda text: since(text, lambda c: not c.isalnum()),
    "after a newline": lambda text: each(text, "\n".__eq__),
    "a digit": lambda text: each(text, str.isdigit),
    "a capital letter": lambda text: each(text, str.isupper),
    "a space": lambda text: each(text, " ".__eq__),
}


def correlations(units: Floats, feature: Floats) -> Floats:
    """Pearson's r of each unit (T, U) with a feature (T); 0 where one of the two never changes."""
    units = units - units.mean(axis=0)
    feature = feature - feature.mean()
    scale = np.sqrt((units**2).sum(axis=0) * (feature**2).sum())
    result: Floats = np.divide(feature @ units, scale, out=np.zeros(units.shape[1]), where=scale > 0)
    return result


def threshold(values: Floats, feature: Floats) -> tuple[float, float]:
    """The value that tells the feature's ones from its zeros best where the ones lie above, and its balanced accuracy."""
    order = np.argsort(values, kind="stable")
    ones, ranked = feature[order], values[order]
    missed = np.concatenate([[0.0], np.cumsum(ones)]) / max(ones.sum(), 1)
    kept_out = np.concatenate([[0.0], np.cumsum(1 - ones)]) / max((1 - ones).sum(), 1)
    accuracy = (1 - missed + kept_out) / 2
    ends = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])  # equal values cannot be told apart
    at = int(np.argmax(np.where(ends, accuracy, -1)))
    edges = np.concatenate([[ranked[0] - 1], (ranked[1:] + ranked[:-1]) / 2, [ranked[-1] + 1]])
    return float(edges[at]), float(accuracy[at])


def balanced(values: Floats, feature: Floats, edge: float) -> float:
    """The mean of the shares told right among the feature's ones and zeros."""
    above = values > edge
    return float(above[feature == 1].mean() + (~above)[feature == 0].mean()) / 2


def find(reading: Reading, *, best: int = 3) -> list[dict[str, Any]]:
    """For each thing of FEATURES that the text shows in both halves the `best` units, with their scores on the second half.

    `correlation` is Pearson's r; of what is yes or no, `accuracy` is balanced (0.5 is a blind guess) at a threshold that the first
    half chose. DataError for a text too short to halve.
    """
    if len(reading.ids) < SHORTEST:
        raise DataError(f"--find needs a text of {SHORTEST} tokens or more, found {len(reading.ids)}")
    names, columns = [], []
    for number, layer in enumerate(reading.layers, 1):
        for kind, letter in (("hidden", ""), ("memory", "c")):
            if kind in layer:
                columns.append(layer[kind])
                names += [f"{number}:{letter}{unit + 1}" for unit in range(layer[kind].shape[1])]
    units = np.concatenate(columns, axis=1).astype(np.float64)
    whole = [at for at, text in enumerate(reading.texts) if text]  # tokens that end a character
    ends = np.cumsum([len(reading.texts[at]) for at in whole]) - 1
    units, text = units[whole], "".join(reading.texts)
    half = len(units) // 2
    found = []
    for name, feature_of in FEATURES.items():
        feature = feature_of(text)[ends]
        first, second = feature[:half], feature[half:]
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            continue
        r = correlations(units[:half], first)
        chosen = np.argsort(-np.abs(r), kind="stable")[:TRIED].tolist()
        yes_or_no = set(np.unique(feature)) <= {0.0, 1.0}
        held_out = correlations(units[half:][:, chosen], second)
        rows = []
        for place, unit in enumerate(chosen):
            row: dict[str, Any] = {"tracks": name, "unit": names[unit], "correlation": float(held_out[place])}
            if yes_or_no:
                sign = 1.0 if r[unit] >= 0 else -1.0
                edge, learnt = threshold(sign * units[:half, unit], first)
                row |= {"threshold": sign * edge, "accuracy": balanced(sign * units[half:, unit], second, edge), "learnt": learnt}
            rows.append(row)
        rows.sort(key=lambda row: -row.get("learnt", 0.0))  # chosen on the first half alone
        found += [{key: value for key, value in row.items() if key != "learnt"} for row in rows[:best]]
    return found
