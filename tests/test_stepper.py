"""A model in C: its products, its steps and what it draws are those of the plain form, and no row depends on the others."""

import ctypes
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import ours
from benchmarks.shapes import Shape
from charrnn import sampling, stepper
from charrnn.config import ModelConfig, SamplingConfig
from charrnn.packing import ROWS, pack, unpack
from charrnn.runtime import Rows, Runtime
from charrnn.stepper import WIDEST, CMatrix, Stepper

compiled = pytest.mark.skipif(stepper.library() is None, reason="_step.c is not compiled here")
SIZES = st.tuples(st.integers(1, 140), st.integers(1, 130), st.integers(0, 2**32))
FORMS = [("lstm", "before", "tanh"), ("gru", "before", "tanh"), ("gru", "after", "tanh"),
         *[(cell, "before", activation) for cell in ("rnn", "mlp") for activation in ("tanh", "relu", "sigmoid")]]


@pytest.fixture(params=range(WIDEST + 1))
def level(request):
    """Each set of instructions, as far as this processor has it."""
    found = stepper.library().charrnn_limit(request.param)
    yield found
    stepper.library().charrnn_limit(WIDEST)


def drawn(rows, columns, seed):
    """Weights of very different rows, the first one zeros."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-9, 9, size=(rows, 1))
    weights[0] = 0
    return weights.astype(np.float32)


def model(cell="lstm", reset="before", activation="tanh", hidden=37, vocabulary=23, layers=2, embedding=5):
    """A model as decided as trained ones are: mostly one token or a few are likely."""
    config = ModelConfig(cell=cell, layers=layers, hidden=hidden, embedding=embedding, vocabulary=vocabulary, gru_reset=reset,
                         activation=activation)
    rng = np.random.default_rng(4)
    return Runtime(config, {name: (rng.normal(size=shape) * (3 if "output" in name else 1) / shape[0] ** 0.5).astype(np.float32)
                            for name, shape in config.shapes().items()})


@given(SIZES)
@settings(deadline=None, max_examples=60)
def test_a_weight_is_off_by_less_than_a_unit(sizes):
    weights = drawn(*sizes)
    words, scale = pack(weights)
    units = unpack(words)
    assert words.ctypes.data % 64 == units.ctypes.data % 64 == 0
    exact = units.astype(np.float64) * scale.reshape(-1, 1, ROWS)
    found = exact.transpose(0, 2, 1).reshape(-1, weights.shape[1])
    assert (np.abs(found[: len(weights)] - weights) <= 0.76 * 256 * scale[: len(weights), None].astype(np.float64)).all()
    assert (found[len(weights) :] == 0).all()


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        pack(np.array([[1, np.inf]], np.float32))


@compiled
@pytest.mark.parametrize("rows, columns, count", [(1, 1, 1), (64, 5, 2), (65, 66, 3), (129, 64, 5), (200, 200, 6), (70, 513, 13)])
def test_products(level, rows, columns, count):
    """Equal to the float64 product of the packed weights, up to float32's rounding; to the bit the same in 24 bits, in float32, and
    for each row alone; no number beside x is read, and none beside the sums written."""
    words, scale = pack(drawn(rows, columns, rows * columns))
    units, panels = unpack(words), len(words)
    multiply = stepper.library().charrnn_product
    x = np.full((count, columns + 3), np.nan, np.float32)
    x[:, :columns] = np.random.default_rng(count).normal(size=(count, columns))
    exact = np.einsum("pkn,bk->bpn", units.astype(np.float64), x[:, :columns].astype(np.float64)).reshape(count, -1)
    size = np.einsum("pkn,bk->bpn", np.abs(units, dtype=np.float64), np.abs(x[:, :columns])).reshape(count, -1)

    def product(matrix, part):
        around = np.full((len(part), panels * ROWS + 9), 123, np.float32)
        multiply(ctypes.byref(matrix), ctypes.c_int64(len(part)), ctypes.c_void_p(part.ctypes.data), ctypes.c_int64(columns + 3),
                 ctypes.c_void_p(around.ctypes.data), ctypes.c_int64(panels * ROWS + 9))
        assert (around[:, -9:] == 123).all()
        return around[:, :-9]

    packed = CMatrix(panels, columns, words.ctypes.data, None, scale.ctypes.data)
    wide = CMatrix(panels, columns, None, units.ctypes.data, scale.ctypes.data)
    together = product(wide, x)
    assert (np.abs(together - exact) <= 1e-6 * size).all()
    np.testing.assert_array_equal(product(packed, x), together)
    for row in range(count):
        np.testing.assert_array_equal(product(wide, x[row : row + 1])[0], together[row])


@compiled
@pytest.mark.parametrize("cell, reset, activation", FORMS)
@pytest.mark.parametrize("many", [False, True])
def test_steps_are_those_of_the_equations(level, cell, reset, activation, many):
    runtime = model(cell, reset, activation)
    one, plain = Stepper(runtime, many=many, silent=3), Rows(runtime, silent=3)
    ids = np.random.default_rng(0).integers(24, size=(30, 1))
    for tokens in ids:
        np.testing.assert_allclose(one.step(tokens), plain.step(tokens), atol=1e-5, rtol=1e-5)
    one.repeat(7)
    plain.repeat(7)
    for tokens in np.random.default_rng(0).integers(24, size=(10, 7)):
        np.testing.assert_allclose(one.step(tokens), plain.step(tokens), atol=1e-5, rtol=1e-5)
    one.keep([5, 2, 6])
    plain.keep([5, 2, 6])
    for tokens in np.random.default_rng(0).integers(24, size=(5, 3)):
        np.testing.assert_allclose(one.step(tokens), plain.step(tokens), atol=1e-5, rtol=1e-5)


@compiled
@pytest.mark.parametrize("cell, reset", [("lstm", "before"), ("gru", "before"), ("gru", "after"), ("rnn", "before")])
def test_a_row_depends_on_no_other_and_on_no_thread(cell, reset, monkeypatch):
    monkeypatch.setattr(stepper, "ALONE", 1)
    runtime, rng = model(cell, reset, embedding=0), np.random.default_rng(1)
    alone = [Stepper(runtime) for _ in range(11)]
    many = [Stepper(runtime, many=True, threads=threads) for threads in (1, 3)]
    for one in many:
        one.repeat(11)
    assert [len(one.parts) for one in many] == [1, 3]
    for tokens in rng.integers(23, size=(12, 11)):
        expected = np.concatenate([one.step([token]) for one, token in zip(alone, tokens)])
        for one in many:
            np.testing.assert_array_equal(one.step(tokens), expected)


@compiled
@pytest.mark.parametrize("cell, reset", [("lstm", "before"), ("gru", "before"), ("gru", "after")])
def test_a_second_thread_changes_no_bit(cell, reset):
    """Also where others want its core, as it comes and goes, and in those that come after it."""
    runtime, rng = model(cell, reset, hidden=300), np.random.default_rng(1)
    alone = Stepper(runtime)
    helped = [Stepper(runtime, threads=2) for _ in range(3)]
    assert all(one.steps[0].helper for one in helped) and not alone.steps[0].helper
    for number, tokens in enumerate(rng.integers(23, size=(400, 1))):
        expected = alone.step(tokens)
        for one in helped:
            np.testing.assert_array_equal(one.step(tokens), expected)
        if number % 100 == 50:
            time.sleep(0.01)  # the helpers fall asleep
            helped[0].keep([0])  # and this one is replaced
    for _ in range(50):
        Stepper(runtime, threads=2)


@compiled
def test_a_fork_goes_on_without_the_second_thread():
    code = ("import os, numpy as np; from benchmarks import ours; from benchmarks.shapes import Shape; from charrnn.runtime import Runtime;"
            "from charrnn.stepper import Stepper; run = ours.run(Shape('lstm', 300));"
            "one = Stepper(Runtime(run.config, run.weights), threads=2); before = one.step([1]).copy();"
            "child = os.fork(); same = (one.step([1]) != before).any(); code = 0 if child == 0 else os.waitpid(child, 0)[1];"
            "assert same and code == 0")
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@compiled
@pytest.mark.parametrize("temperature", [0, 0.3, 1, 4])
@pytest.mark.parametrize("vocabulary", [1, 2, 15, 16, 17, 300])
def test_draws_are_those_of_the_plain_form(level, vocabulary, temperature):
    runtime, rng = model(vocabulary=vocabulary, layers=1), np.random.default_rng(2)
    one = Stepper(runtime, many=True)
    one.repeat(500)
    one.logits[:] = rng.normal(size=(500, vocabulary)) * 10
    uniform = rng.random(500)
    uniform[:2] = 0, np.nextafter(1, 0)
    expected, costs = sampling.drawn_by(one.logits, np.zeros((500, 0), int), uniform, SamplingConfig(temperature=temperature))
    tokens, nats = one.draw(temperature, uniform)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(nats, costs, atol=1e-12, rtol=1e-12)


@compiled
@pytest.mark.parametrize("logits", [[-np.inf, -np.inf, 0, -np.inf], [np.nan] * 4, [-np.inf] * 4, [np.inf, 0, 1, np.inf]])
@pytest.mark.parametrize("temperature", [0, 0.5, 1])
def test_what_is_impossible_is_never_drawn_and_nothing_is_drawn_that_is_not_there(level, logits, temperature):
    one = Stepper(model(vocabulary=4))
    for uniform in (0, 0.5, np.nextafter(1, 0), 1):
        one.logits[:] = logits
        tokens, _ = one.draw(temperature, [uniform])
        assert 0 <= tokens[0] < 4 and (logits[2] != 0 or tokens[0] == 2)


@compiled
@pytest.mark.parametrize("token", [-1, 24])
def test_a_token_outside_the_table_is_refused(token):
    with pytest.raises(IndexError, match="has 24 rows"):
        Stepper(model()).step([token])


def test_the_environment_refuses_the_library():
    code = "import os; os.environ['CHARRNN_KERNELS'] = 'plain'; from charrnn import stepper; assert stepper.library() is None"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def written(run, **given):
    """The texts and the nats of the samples."""
    texts, nats = {}, {}
    for piece in sampling.generate(run, SamplingConfig(**given)):
        texts[piece.sample] = texts.get(piece.sample, "") + piece.text
        if piece.end:
            nats[piece.sample] = piece.end["nats"]
    return texts, nats


@compiled
@pytest.mark.parametrize("given_", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.6, "prompt": "abc"}, {"top_k": 4},
                                    {"repetition_penalty": 1.3, "min_p": 0.01}])
@pytest.mark.parametrize("cell, reset", [("lstm", "before"), ("gru", "before"), ("gru", "after"), ("rnn", "before")])
def test_the_text_is_that_of_the_plain_form(cell, reset, given_, monkeypatch):
    run = ours.run(Shape(cell, 30, 2, vocabulary=37), reset=reset)
    run.weights["output.w"] *= 6
    texts, nats = written(run, length=700, seed=3, **given_)
    monkeypatch.setattr(sampling, "library", lambda: None)
    expected, costs = written(run, length=700, seed=3, **given_)
    assert texts == expected and (len(set(texts[0])) > 8 or not given_.get("temperature"))
    np.testing.assert_allclose(nats[0], costs[0], rtol=1e-4)


@compiled
def test_a_sample_is_the_same_whatever_stands_beside_it():
    """To the bit, also when others have come to their end."""
    run = ours.run(Shape("gru", 30, 2, vocabulary=37))
    texts, nats = written(run, length=300, seed=5, count=9, stop=("0", "12"))
    assert len({len(text) for text in texts.values()}) > 3
    for number in range(9):
        alone, cost = written(run, length=300, seed=5 + number, stop=("0", "12"))
        assert alone[0] == texts[number] and cost[0] == nats[number]


def test_weights_that_are_not_finite_are_left_to_numpy():
    run = ours.run(Shape("rnn", 5, 1, vocabulary=7))
    run.weights["output.w"][0, 0] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(sampling.model_of(run, 1), Rows)
