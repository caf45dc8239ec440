"""nanoGPT's way of scoring: windows of 256 characters, each read from a zero state. (It draws windows at random; here all are read.)"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.kernels import summed_nats
from charrnn.model import Model

WINDOW, ROWS = 256, 64


@torch.no_grad()
def score(model: Model, tokens: NDArray[np.integer], window: int = WINDOW) -> tuple[float, int]:
    """The nats of `window` tokens at a time, the one before them read first, from the zero state; and how many tokens were scored.

    What is left over at the end is not scored; a text shorter than a window is one window.
    """
    window = max(1, min(window, len(tokens) - 1))
    starts = np.arange(0, len(tokens) - window, window)
    nats = 0.0
    for begin in range(0, len(starts), ROWS):
        places = np.arange(window + 1)[:, None] + starts[begin : begin + ROWS]
        block = torch.from_numpy(tokens[places].astype(np.int64))
        hidden, _ = model.hidden(block[:-1], model.zero_state(block.shape[1]))
        nats += float(summed_nats(hidden.flatten(0, 1), model.output["w"], model.output["b"], block[1:].flatten()))
    return nats, len(starts) * window
