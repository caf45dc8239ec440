"""What is computed, as plain values: shared by the kernels so that neither imports the other."""

from __future__ import annotations

from typing import NamedTuple

CELLS = ("rnn", "gru", "lstm")
ACTIVATIONS = ("tanh", "relu", "sigmoid")


class Form(NamedTuple):
    """A cell of CELLS, the activation of an rnn, and on which side of the product a gru resets."""

    cell: str
    activation: str = "tanh"
    reset: str = "before"
