"""A product with a vector whose weights take 24 bits: near the exact one, within its buffers, and the same text from it."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import matvec
from charrnn.config import ModelConfig
from charrnn.matvec import MOST, ROWS, UNIT, Matrix, pack, unpack
from charrnn.runtime import Runtime, Stream

compiled = pytest.mark.skipif(matvec.library() is None, reason="_matvec.c is not compiled here")
SIZES = st.tuples(st.integers(1, 140), st.integers(1, 130), st.integers(0, 2**32))


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(matvec, "library", lambda: None)


def drawn(rows, columns, seed):
    """Weights of very different rows, the first one zeros, and a vector."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-9, 9, size=(rows, 1))
    weights[0] = 0
    return weights.astype(np.float32), rng.normal(size=columns).astype(np.float32)


@given(SIZES)
@settings(deadline=None, max_examples=60)
def test_a_weight_is_off_by_half_a_unit_at_most(sizes):
    weights, _ = drawn(*sizes)
    scale = np.abs(weights).max(axis=1) / MOST
    words = pack(weights, scale)
    assert words.ctypes.data % 64 == 0
    assert (np.abs(unpack(words, scale) - weights) <= 0.5000001 * scale.astype(np.float64)[:, None]).all()


def check_products(sizes):
    """Equal to the float64 product of the packed weights, up to float32's rounding; nothing beside `out` is written."""
    weights, x = drawn(*sizes)
    rows, columns = weights.shape
    matrix = Matrix(weights)
    exact = unpack(matrix.words, matrix.scale * np.float32(UNIT))
    around = np.full(rows + 32, 123.0, np.float32)
    nans = np.full(columns + 32, np.nan, np.float32)  # a number read from beside x would show
    out, inside = around[16:-16], nans[16:-16]
    inside[:] = x
    assert matrix.dot(inside, out) is out
    assert (np.abs(out - exact @ x) <= 1e-6 * (np.abs(exact) @ np.abs(x))).all()
    assert out[0] == 0 and (around[:16] == 123).all() and (around[-16:] == 123).all()


@compiled
@given(SIZES)
@settings(deadline=None, max_examples=100)
def test_products(sizes):
    check_products(sizes)


@compiled
@pytest.mark.parametrize("level", [0, 1])
def test_lesser_processors(level):
    """The same from the code paths for processors without AVX-512, and without AVX2."""
    matvec.library().charrnn_limit(level)
    try:
        for rows in (1, 15, 16, 17, 48, 63, 64, 65, 129):
            for columns in (1, 2, 3, 4, 5, 31, 66):
                check_products((rows, columns, rows * columns))
    finally:
        matvec.library().charrnn_limit(2)


@compiled
def test_arrays_may_change_from_call_to_call():
    weights, x = drawn(70, 9, 1)
    matrix, out, other = Matrix(weights), np.empty(70, np.float32), np.empty(70, np.float32)
    matrix.dot(x, out)
    np.testing.assert_array_equal(matrix.dot(x + 0, other), out)
    x *= 2  # in place: the address is the same, the numbers are not
    np.testing.assert_array_equal(matrix.dot(x, other), 2 * out)


@compiled
@pytest.mark.parametrize("x, out", [
    (np.zeros(8, np.float32), np.zeros(70, np.float32)),
    (np.zeros(9, np.float64), np.zeros(70, np.float32)),
    (np.zeros(18, np.float32)[::2], np.zeros(70, np.float32)),
    (np.zeros(9, np.float32), np.zeros(71, np.float32)),
    (np.zeros(9, np.float32), np.frombuffer(bytes(280), np.float32)),
])
def test_what_does_not_fit_is_refused(x, out):
    with pytest.raises(ValueError, match="a product"):
        Matrix(drawn(70, 9, 1)[0]).dot(x, out)


@pytest.mark.parametrize("change", [lambda w: w.astype(np.float64), lambda w: np.where(w == w.max(), np.inf, w).astype(np.float32)])
def test_other_weights_stay_as_they_are(change):
    weights, x = drawn(13, 5, 2)
    weights = change(weights)
    out = np.empty(13, weights.dtype)
    np.testing.assert_array_equal(Matrix(weights).dot(x.astype(weights.dtype), out), np.dot(weights, x.astype(weights.dtype)))


def test_without_the_library_numpy_multiplies(plain):
    weights, x = drawn(13, 5, 2)
    matrix, out = Matrix(weights.T.copy().T), np.empty(13, np.float32)
    assert matrix.weights.flags.c_contiguous
    np.testing.assert_array_equal(matrix.dot(x, out), np.dot(weights, x))
    assert (pack(np.zeros((ROWS, 2), np.float32), np.zeros(ROWS, np.float32)) == 0).all()


def test_the_environment_refuses_the_library():
    code = "import os; os.environ['CHARRNN_KERNELS'] = 'plain'; from charrnn import matvec; assert matvec.library() is None"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def written(config, weights, temperature, length, seed):
    """Token ids as a stream draws them, and the last logits."""
    stream, rng, token, ids = Stream(Runtime(config, weights)), np.random.default_rng(seed), config.vocabulary, []
    for _ in range(length):
        logits = stream.feed(token).astype(np.float64)
        p = np.exp((logits - logits.max()) / temperature) if temperature else logits == logits.max()
        rising = np.cumsum(p)
        token = int((rising <= rng.random() * rising[-1]).sum())
        ids.append(token)
    return ids, logits


@compiled
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("cell, reset", [("lstm", "before"), ("gru", "before"), ("gru", "after"), ("rnn", "before")])
def test_the_text_is_the_same(cell, reset, temperature, monkeypatch):
    """As from float32 weights, for models as decided as trained ones are: mostly one token or a few are likely."""
    config = ModelConfig(cell=cell, layers=2, hidden=70, embedding=5, vocabulary=37, gru_reset=reset)
    rng = np.random.default_rng(4)
    weights = {name: (rng.normal(size=shape) * (3 if "output" in name else 1) / shape[0] ** 0.5).astype(np.float32)
               for name, shape in config.shapes().items()}
    ids, logits = written(config, weights, temperature, 1500, 5)
    monkeypatch.setattr(matvec, "library", lambda: None)
    expected, exact = written(config, weights, temperature, 1500, 5)
    assert ids == expected and (len(set(ids)) > 20 or not temperature)
    np.testing.assert_allclose(logits, exact, atol=1e-4)
