"""The cells against the equations written out, against torch.nn, and NumPy against torch."""

import numpy as np
import pytest
import torch
from torch import nn

from charrnn import cells

B, H, E = 3, 5, 4
FORMS = [("rnn", "before"), ("gru", "before"), ("gru", "after"), ("lstm", "before"), ("mlp", "before")]


def make(cell, seed=0):
    rng = np.random.default_rng(seed)
    gates = cells.GATES[cell]
    return (rng.normal(size=(B, gates * H)), tuple(rng.normal(size=(B, H)) for _ in range(cells.STATES[cell])),
            rng.normal(size=(H, gates * H)), rng.normal(size=H))


def by_unit(cell, reset, x, state, w_h, b_h):
    """The equations once more, one number at a time."""
    sigma = lambda v: 1 / (1 + np.exp(-v))
    out = np.zeros((B, H))
    memory = np.zeros((B, H))
    for b in range(B):
        h = state[0][b] if state else np.zeros(H)
        dot = lambda v, column: sum(v[k] * w_h[k, column] for k in range(H))
        for j in range(H):
            if cell == "mlp":
                out[b, j] = np.tanh(x[b, j])
            elif cell == "rnn":
                out[b, j] = np.tanh(x[b, j] + dot(h, j))
            elif cell == "lstm":
                i, f = sigma(x[b, j] + dot(h, j)), sigma(x[b, H + j] + dot(h, H + j))
                candidate, o = np.tanh(x[b, 2 * H + j] + dot(h, 2 * H + j)), sigma(x[b, 3 * H + j] + dot(h, 3 * H + j))
                memory[b, j] = f * state[1][b, j] + i * candidate
                out[b, j] = o * np.tanh(memory[b, j])
            else:
                reset_gate = np.array([sigma(x[b, k] + dot(h, k)) for k in range(H)])
                z = sigma(x[b, H + j] + dot(h, H + j))
                if reset == "before":
                    candidate = np.tanh(x[b, 2 * H + j] + dot(reset_gate * h, 2 * H + j))
                else:
                    candidate = np.tanh(x[b, 2 * H + j] + reset_gate[j] * (dot(h, 2 * H + j) + b_h[j]))
                out[b, j] = z * h[j] + (1 - z) * candidate
    return (out, memory) if cell == "lstm" else (out,)


@pytest.mark.parametrize("cell, reset", FORMS)
def test_step_is_the_equations(cell, reset):
    x, state, w_h, b_h = make(cell)
    step = cells.step(np, cell, x, state, w_h, b_h, reset=reset)
    for found, expected in zip(step, by_unit(cell, reset, x, state, w_h, b_h), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("cell, reset", FORMS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_numpy_equals_torch(cell, reset, activation):
    x, state, w_h, b_h = make(cell, 1)
    here = cells.step(np, cell, x, state, w_h, b_h, activation=activation, reset=reset)
    t = torch.from_numpy
    there = cells.step(torch, cell, t(x), tuple(map(t, state)), t(w_h), t(b_h), activation=activation, reset=reset)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-14)


@pytest.mark.parametrize("cell, kind", [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_weights_of_torch_layers_move_over(cell, kind):
    """From torch.nn's layer: W_x and W_h transposed, the two biases added (the gru's candidate keeps its own)."""
    theirs = kind(E, H).double()
    x, start = torch.randn(7, B, E, dtype=torch.float64), torch.randn(1, B, H, dtype=torch.float64)
    states = (start, start.flip(2)) if cell == "lstm" else start
    with torch.no_grad():
        expected, _ = theirs(x, states)
        b = theirs.bias_ih_l0 + theirs.bias_hh_l0
        b_h = None
        if cell == "gru":
            b_h = theirs.bias_hh_l0[2 * H :]
            b[2 * H :] -= b_h
        state = tuple(s[0] for s in states) if cell == "lstm" else (start[0],)
        for t in range(len(x)):
            state = cells.step(torch, cell, x[t] @ theirs.weight_ih_l0.T + b, state, theirs.weight_hh_l0.T, b_h, reset="after")
            torch.testing.assert_close(state[0], expected[t], atol=1e-12, rtol=0)


def test_sigmoid_neither_overflows_nor_loses_its_tails():
    values = np.array([-1e4, -30.0, 0.0, 30.0, 1e4])
    np.testing.assert_allclose(cells.sigmoid(np, values), [0, 1 / (1 + np.exp(30.0)), 0.5, 1, 1], atol=1e-15)
