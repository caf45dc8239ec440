"""One step of each cell, as the textbooks write it, for NumPy and torch arrays alike.

Every function takes the array namespace `xp` (numpy or torch) first. B rows, H hidden units, G gates:

    x       (B, G·H)  what the input contributes to each gate, biases included: X_t W_x + b
    w_h     (H, G·H)  recurrent weights, the gates side by side
    states  (B, H)

mlp and rnn return the new states, the output H_t first. gru and lstm return their gates, each (B, H), of which `through` makes the
new states; `step` does both. Gates lie in torch.nn's order: gru r, z, h̃; lstm i, f, c̃, o.
"""

from __future__ import annotations

from typing import Any

Array = Any  # numpy.ndarray or torch.Tensor: the equations are the same

GATES = {"mlp": 1, "rnn": 1, "gru": 3, "lstm": 4}
STATES = {"mlp": 0, "rnn": 1, "gru": 1, "lstm": 2}
NAMES = {"mlp": (), "rnn": (), "gru": ("reset", "update", "candidate"), "lstm": ("input", "forget", "candidate", "output")}


def sigmoid(xp: Any, x: Array) -> Array:
    """σ(x) = 1 / (1 + e^−x), by way of tanh, which cannot overflow."""
    return 0.5 * xp.tanh(0.5 * x) + 0.5


def activate(xp: Any, activation: str, x: Array) -> Array:
    """φ(x) for φ of tanh, relu or sigmoid."""
    if activation == "tanh":
        return xp.tanh(x)
    if activation == "relu":
        return xp.clip(x, 0, None)
    return sigmoid(xp, x)


def mlp(xp: Any, x: Array, activation: str = "tanh") -> tuple[Array]:
    """H_t = φ(X_t W_xh + b_h): no memory."""
    return (activate(xp, activation, x),)


def rnn(xp: Any, x: Array, h: Array, w_h: Array, activation: str = "tanh") -> tuple[Array]:
    """H_t = φ(X_t W_xh + H_{t−1} W_hh + b_h)."""
    return (activate(xp, activation, x + h @ w_h),)


def gru_before(xp: Any, x: Array, h: Array, w_h: Array) -> tuple[Array, Array, Array]:
    """R_t, Z_t, H̃_t in the form of Cho et al. 2014: the reset gate is applied to the state before the product."""
    size = h.shape[1]
    rz = sigmoid(xp, x[:, : 2 * size] + h @ w_h[:, : 2 * size])
    r, z = rz[:, :size], rz[:, size:]
    return r, z, xp.tanh(x[:, 2 * size :] + (r * h) @ w_h[:, 2 * size :])


def gru_after(xp: Any, x: Array, h: Array, w_h: Array, b_h: Array) -> tuple[Array, Array, Array]:
    """R_t, Z_t, H̃_t in cuDNN's form: the reset gate is applied after the product, whose own bias is b_h (H)."""
    size = h.shape[1]
    product = h @ w_h
    rz = sigmoid(xp, x[:, : 2 * size] + product[:, : 2 * size])
    r, z = rz[:, :size], rz[:, size:]
    return r, z, xp.tanh(x[:, 2 * size :] + r * (product[:, 2 * size :] + b_h))


def lstm(xp: Any, x: Array, h: Array, w_h: Array) -> tuple[Array, Array, Array, Array]:
    """I_t, F_t, C̃_t, O_t (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000)."""
    size = h.shape[1]
    gates = x + h @ w_h
    i_f = sigmoid(xp, gates[:, : 2 * size])
    return i_f[:, :size], i_f[:, size:], xp.tanh(gates[:, 2 * size : 3 * size]), sigmoid(xp, gates[:, 3 * size :])


def gates(xp: Any, cell: str, x: Array, state: tuple[Array, ...], w_h: Array, b_h: Array | None = None, *,
          reset: str = "before") -> tuple[Array, ...]:
    """The gates and the candidate of a gru or lstm, each (B, H), as NAMES has them; nothing for the others."""
    if cell == "lstm":
        return lstm(xp, x, state[0], w_h)
    if cell == "gru":
        return gru_before(xp, x, state[0], w_h) if reset == "before" else gru_after(xp, x, state[0], w_h, b_h)
    return ()


def through(xp: Any, cell: str, opened: tuple[Array, ...], state: tuple[Array, ...]) -> tuple[Array, ...]:
    """The states after, given the gates: H_t = Z_t ⊙ H_{t−1} + (1 − Z_t) ⊙ H̃_t, or C_t = F_t ⊙ C_{t−1} + I_t ⊙ C̃_t and
    H_t = O_t ⊙ tanh(C_t)."""
    if cell == "gru":
        _, z, candidate = opened
        return (z * state[0] + (1 - z) * candidate,)
    i, f, candidate, o = opened
    c = f * state[1] + i * candidate
    return o * xp.tanh(c), c


def step(xp: Any, cell: str, x: Array, state: tuple[Array, ...], w_h: Array | None, b_h: Array | None = None, *,
         activation: str = "tanh", reset: str = "before") -> tuple[Array, ...]:
    """One step of `cell`; `state` as STATES counts them, `b_h` only for a gru that resets after."""
    if cell == "mlp":
        return mlp(xp, x, activation)
    if cell == "rnn":
        return rnn(xp, x, state[0], w_h, activation)
    return through(xp, cell, gates(xp, cell, x, state, w_h, b_h, reset=reset), state)
