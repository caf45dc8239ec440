"""The kernels are the equations: equal to cells.step under autograd, however they are called, on however many threads."""

from __future__ import annotations

import gc
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from charrnn import cells, kernels
from charrnn.errors import UsageError
from charrnn.kernels import buffers, output, plain, rowwise

WORKS = ["torch", "c"]
FORMS = [("rnn", "tanh", "before"), ("rnn", "relu", "before"), ("rnn", "sigmoid", "before"), ("gru", "tanh", "before"),
         ("gru", "tanh", "after"), ("lstm", "tanh", "before"), ("mlp", "sigmoid", "before")]
WAYS = ["table", "ready", "inputs"]


@pytest.fixture(params=WORKS)
def work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with both backends; the compiled one where there is one."""
    use(request.param, monkeypatch)
    return str(request.param)


def use(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if name == "torch":
        chosen: ModuleType = rowwise
    else:
        chosen = pytest.importorskip("charrnn.kernels.native", reason="no compiled kernel here", exc_type=ImportError)
    monkeypatch.setattr(kernels, "_work", lambda: chosen)
    return chosen


class Case:
    """Random weights, inputs and output weights for one call; every tensor that takes a gradient in `leaves`."""

    def __init__(self, cell: str, activation: str, reset: str, way: str, *, rows: int = 5, steps: int = 7, size: int = 19,
                 vocabulary: int = 11, inputs: int = 13, seed: int = 1, dtype: torch.dtype = torch.float64, masked: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)

        def leaf(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator, dtype=dtype) * scale).requires_grad_()

        width = cells.GATES[cell] * size
        self.cell = cell
        mask = (torch.rand(rows, size, generator=generator) > 0.4).to(dtype) / 0.6 if masked else None
        self.options = {"activation": activation, "reset": reset, "mask": mask}
        self.source = {"table": leaf(vocabulary, width), "ready": leaf(steps, rows, width), "inputs": leaf(steps, rows, inputs)}[way]
        self.w_h = leaf(size, width, scale=size**-0.5) if cell != "mlp" else None
        self.b_h = leaf(size) if cell == "gru" and reset == "after" else None
        self.w_x: Tensor | None
        self.b_x: Tensor | None
        self.w_x, self.b_x = (leaf(inputs, width, scale=inputs**-0.5), leaf(width)) if way == "inputs" else (None, None)
        self.state = tuple(leaf(rows, size) for _ in range(cells.STATES[cell]))
        self.tokens = torch.randint(vocabulary, (steps, rows), generator=generator) if way == "table" else None
        self.mix = [torch.randn(steps, rows, size, generator=generator, dtype=dtype)]
        self.mix += [torch.randn(rows, size, generator=generator, dtype=dtype) for _ in self.state]
        self.leaves = [part for part in (self.source, self.w_x, self.b_x, self.w_h, self.b_h, *self.state) if part is not None]

    def call(self, function: object = None) -> list[Tensor]:
        outputs, final = (function or kernels.recur)(  # type: ignore[operator]
            self.cell, self.source, self.w_h, self.b_h, self.state, tokens=self.tokens, w_x=self.w_x, b_x=self.b_x, **self.options)
        return [outputs, *final]

    def results(self, function: object = None) -> list[Tensor]:
        """Outputs, final state, then the gradient of a random mixture of both with respect to every leaf."""
        values = self.call(function)
        loss = sum((value * weight).sum() for value, weight in zip(values, self.mix, strict=True))
        return [value.detach() for value in values] + list(torch.autograd.grad(loss, self.leaves))  # type: ignore[arg-type]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert float((a - b).detach().abs().max()) <= tolerance * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize("masked", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_equal_to_the_equations(work: str, form: tuple[str, str, str], way: str, masked: bool) -> None:
    case = Case(*form, way, masked=masked)
    assert_close(case.results(), case.results(plain.recur), 1e-12)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_single_precision_is_the_same_up_to_rounding(work: str, form: tuple[str, str, str]) -> None:
    found = Case(*form, "table", dtype=torch.float32, size=33, seed=3).results()
    exact = Case(*form, "table", dtype=torch.float32, size=33, seed=3)
    for part in (*exact.leaves, *exact.mix):
        part.data = part.data.double()
    assert_close([value.double() for value in found], exact.results(plain.recur), 5e-6)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FORMS), st.sampled_from(WAYS), st.integers(1, 40), st.integers(1, 4), st.integers(1, 70), st.integers(1, 9),
       st.integers(1, 37), st.booleans(), st.sampled_from(WORKS))
def test_every_size(form: tuple[str, str, str], way: str, rows: int, steps: int, size: int, vocabulary: int, inputs: int,
                    masked: bool, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(name, patch)
        case = Case(*form, way, rows=rows, steps=steps, size=size, vocabulary=vocabulary, inputs=inputs, masked=masked)
        assert_close(case.results(), case.results(plain.recur), 1e-12)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lesser_processors(level: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same from the code paths for processors without AVX-512, and without AVX2."""
    native = use("c", monkeypatch)
    native._library.charrnn_limit(level)
    try:
        for form in FORMS:
            for way in WAYS:
                found = Case(*form, way, dtype=dtype, rows=9, size=21, masked=True).results()
                exact = Case(*form, way, dtype=dtype, rows=9, size=21, masked=True)
                for part in (*exact.leaves, *exact.mix, exact.options["mask"]):
                    part.data = part.data.double()
                assert_close([value.double() for value in found], exact.results(plain.recur), 1e-12 if dtype == torch.float64 else 5e-6)
    finally:
        native._library.charrnn_limit(4)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_slopes_are_numeric_slopes(work: str, form: tuple[str, str, str]) -> None:
    case = Case(*form, "inputs", rows=2, steps=3, size=5)
    grads = case.results()[1 + len(case.state) :]
    for leaf, grad in zip(case.leaves, grads, strict=True):
        direction = torch.randn_like(leaf)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * 1e-6 * direction
                sides.append(sum(float((v * w).sum()) for v, w in zip(case.call(), case.mix, strict=True)))
                leaf -= sign * 1e-6 * direction
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float((grad * direction).sum()), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_whole_is_its_pieces(work: str, form: tuple[str, str, str]) -> None:
    """A window cut in two, its state handed on, gives the same outputs and the same gradients through the seam."""
    case = Case(*form, "table", steps=8, masked=True)
    whole = case.results()
    tokens, state, pieces = case.tokens, case.state, []
    assert tokens is not None
    for part in (tokens[:3], tokens[3:]):
        outputs, state = kernels.recur(case.cell, case.source, case.w_h, case.b_h, state, tokens=part, **case.options)  # type: ignore[arg-type]
        pieces.append(outputs)
    values = [torch.cat(pieces), *state]
    loss = sum((value * weight).sum() for value, weight in zip(values, case.mix, strict=True))
    assert_close(values + list(torch.autograd.grad(loss, case.leaves)), whole, 1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@pytest.mark.parametrize("rows", [1, 2, 101])
def test_threads_change_nothing(work: str, form: tuple[str, str, str], rows: int) -> None:
    """Bit for bit with the compiled kernel; PyTorch's own products may be summed in another order."""
    results = []
    try:
        for threads in (1, 2, 3, 3):
            kernels.use_threads(threads)
            results.append(Case(*form, "inputs", rows=rows, dtype=torch.float32, masked=True).results())
    finally:
        kernels.use_threads(None)
    assert all(torch.equal(a, b) for a, b in zip(results[2], results[3], strict=True))
    if work == "c" and form[0] != "mlp":
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_without_gradients(work: str, form: tuple[str, str, str]) -> None:
    for way in WAYS:
        case = Case(*form, way, masked=way == "inputs")
        expected = case.call()
        with torch.no_grad():
            assert_close(case.call(), expected, 1e-12)
        with torch.inference_mode():
            assert_close(case.call(), expected, 1e-12)


def test_only_some_gradients(work: str) -> None:
    """A frozen leaf gets none, the others the same; an output that nobody uses counts for nothing."""
    for form in FORMS:
        for way in WAYS:
            case = Case(*form, way)
            expected = case.results()[1 + len(case.state) :]
            for chosen, wanted in zip(case.leaves, expected, strict=True):
                for leaf in case.leaves:
                    leaf.requires_grad_(leaf is chosen)
                values = case.call()
                loss = sum((v * w).sum() for v, w in zip(values, case.mix, strict=True) if v.requires_grad)
                assert_close([torch.autograd.grad(loss, chosen)[0]], [wanted], 1e-12)  # type: ignore[arg-type]
    case = Case("lstm", "tanh", "before", "table")
    only = [torch.autograd.grad((case.call(f)[2] * case.mix[2]).sum(), case.leaves) for f in (None, plain.recur)]
    assert_close(list(only[0]), list(only[1]), 1e-12)


def test_two_graphs_at_once(work: str) -> None:
    """Buffers that are kept between steps are never shared by two graphs that are alive, nor spoilt by a run without one."""
    first, second = Case("lstm", "tanh", "before", "table", seed=1), Case("lstm", "tanh", "before", "table", seed=2)
    expected = [case.results(plain.recur) for case in (first, second)]
    for _ in range(3):
        alive = [first.call(), second.call()]
        with torch.no_grad():
            first.call()
        for case, values, wanted in zip((second, first), alive[::-1], expected[::-1], strict=True):
            loss = sum((v * w).sum() for v, w in zip(values, case.mix, strict=True))
            grads = list(torch.autograd.grad(loss, case.leaves))  # type: ignore[arg-type]
            assert_close(grads, wanted[3:], 1e-12)


def test_buffers_come_back(work: str) -> None:
    """As much is kept after many steps as after one, also when a graph is dropped unused or walked once too often."""
    gc.collect()
    buffers.POOL.clear()
    case = Case("gru", "tanh", "after", "inputs")
    case.results()
    kept = {buffer.data_ptr() for buffer in buffers.POOL._free[torch.float64]}
    for _ in range(3):
        case.results()
        values = case.call()
        del values
        gc.collect()
        assert {buffer.data_ptr() for buffer in buffers.POOL._free[torch.float64]} == kept
    loss = case.call()[0].sum()
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="backward ran already"):
        torch.autograd.backward(loss)


def test_not_a_number_is_seen(work: str) -> None:
    """A model that diverged must not look healthy: NaN passes every gate."""
    for form in FORMS:
        case = Case(*form, "ready", dtype=torch.float32)
        with torch.no_grad():
            case.source[2, 1] = float("nan")
            outputs = case.call()[0]
        assert bool(outputs[2, 1].isnan().all()) and not bool(outputs[:, 0].isnan().any())


def test_extreme_inputs_saturate(work: str) -> None:
    for form in FORMS:
        for dtype in (torch.float32, torch.float64):
            case = Case(*form, "ready", dtype=dtype)
            with torch.no_grad():
                case.source.copy_(torch.tensor([1e30, -1e30, 95.0, -95.0, 1e-30, 0.0, 17.0]).to(dtype)[:, None, None])
            found, expected = case.results(), case.results(plain.recur)
            if form[1] != "relu":
                assert_close(found, expected, 2e-5 if dtype == torch.float32 else 1e-12)


def test_strange_layouts(work: str) -> None:
    """Transposed and sliced tensors, also as the gradient that comes in."""
    case = Case("lstm", "tanh", "before", "ready")
    expected = case.results()
    weights = case.w_h.detach().t().contiguous().t().requires_grad_()  # type: ignore[union-attr]
    source = case.source.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    outputs, final = kernels.recur("lstm", source, weights, None, case.state)
    loss = (outputs.transpose(0, 1) * case.mix[0].transpose(0, 1)).sum()
    loss = loss + (final[0] * case.mix[1]).sum() + (final[1] * case.mix[2]).sum()
    found = torch.autograd.grad(loss, [source, weights, *case.state])
    assert_close([outputs, *final, *found], expected, 1e-12)


def test_refusals(work: str) -> None:
    case = Case("gru", "tanh", "after", "table")
    assert case.tokens is not None and case.w_h is not None
    for bad in (-1, 11):
        tokens = case.tokens.clone()
        tokens[3, 2] = bad
        with pytest.raises(IndexError, match="11 rows"):
            kernels.recur("gru", case.source, case.w_h, case.b_h, case.state, tokens=tokens, reset="after")
    with pytest.raises(UsageError, match="b_h"):
        kernels.recur("gru", case.source, case.w_h, None, case.state, tokens=case.tokens, reset="after")
    with pytest.raises(UsageError, match="w_h"):
        kernels.recur("gru", case.source, case.w_h[:, 1:], case.b_h, case.state, tokens=case.tokens, reset="after")
    with pytest.raises(UsageError, match="state"):
        kernels.recur("gru", case.source, case.w_h, case.b_h, (case.state[0][1:],), tokens=case.tokens, reset="after")
    with pytest.raises(UsageError, match="mask"):
        kernels.recur("gru", case.source, case.w_h, case.b_h, case.state, tokens=case.tokens, reset="after", mask=case.state[0][1:])
    with pytest.raises(UsageError, match="transformer"):
        kernels.recur("transformer", case.source, case.w_h, None, ())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (23, 5, 11), (97, 33, 65), (13, 70, 259), (5, 8, 16)])
def test_output_layer_and_its_loss(work: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to torch's cross-entropy, whole and in chunks, with its gradients; a linear map likewise."""
    rows, size, vocabulary = sizes
    generator = torch.Generator().manual_seed(0)
    hidden, w, b = ((torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype).requires_grad_()
                    for shape in ((rows, size), (size, vocabulary), (vocabulary,)))
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    exact = [part.detach().double().requires_grad_() for part in (hidden, w, b)]
    loss = 0.3 * functional.cross_entropy(torch.addmm(exact[2], exact[0], exact[1]), targets, reduction="sum")
    expected = [loss.detach(), *torch.autograd.grad(loss, exact)]
    mix = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    mapped = torch.addmm(exact[2], exact[0], exact[1])
    wanted = [mapped.detach(), *torch.autograd.grad((mapped * mix).sum(), exact)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for chunk in (1, 7 * vocabulary, 1 << 20):
        monkeypatch.setattr(output, "CHUNK", chunk)
        loss = 0.3 * kernels.summed_nats(hidden, w, b, targets)
        grads = torch.autograd.grad(loss, (hidden, w, b))
        assert_close([loss.detach(), *(grad.double() for grad in grads)], expected, tolerance)
        with torch.no_grad():
            assert_close([0.3 * kernels.summed_nats(hidden, w, b, targets)], expected[:1], tolerance)
    mapped = kernels.linear(hidden, w, b)
    grads = torch.autograd.grad((mapped * mix.to(dtype)).sum(), (hidden, w, b))
    assert_close([mapped.double().detach(), *(grad.double() for grad in grads)], wanted, 10 * tolerance)
    for bad in (-1, vocabulary):
        with pytest.raises(IndexError, match="vocabulary"):
            kernels.summed_nats(hidden, w, b, torch.full_like(targets, bad))


@pytest.mark.parametrize("sizes", [(1, 1, 2), (37, 5, 11), (70, 33, 300)])
def test_the_loss_of_a_student_is_that_of_the_text_and_of_its_teacher(work: str, sizes: tuple[int, int, int],
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is that of both, whole and in chunks; the value is what the text costs. The teacher may have another width."""
    rows, size, vocabulary = sizes
    hidden, w, b, taught, w_t, b_t = (torch.randn(shape, dtype=torch.float64) for shape in (
        (rows, size), (size, vocabulary), (vocabulary,), (rows, size + 3), (size + 3, vocabulary), (vocabulary,)))
    targets, parts = torch.randint(vocabulary, (rows,)), [part.requires_grad_() for part in (hidden, w, b)]
    logits, predicted = torch.addmm(b, hidden, w), torch.softmax(torch.addmm(b_t, taught, w_t), 1)
    plain = functional.cross_entropy(logits, targets, reduction="sum")
    both = 0.7 * plain - 0.3 * (predicted * torch.log_softmax(logits, 1)).sum()
    expected = [plain.detach(), *torch.autograd.grad(both, parts)]
    lesson = kernels.Lesson(taught, w_t, b_t, 0.3)
    elsewhere = output.plain_nats(hidden, w, b, targets, lesson)
    assert_close([elsewhere.detach(), *torch.autograd.grad(elsewhere, parts)], expected, 1e-12)
    for chunk in (1, 7 * vocabulary, 1 << 20):
        monkeypatch.setattr(output, "CHUNK", chunk)
        loss = kernels.summed_nats(hidden, w, b, targets, lesson=lesson)
        assert_close([loss.detach(), *torch.autograd.grad(loss, parts)], expected, 1e-12)
    with pytest.raises(UsageError, match="teacher"):
        kernels.summed_nats(hidden, w, b, targets, lesson=kernels.Lesson(taught[1:], w_t, b_t, 0.3))


def test_loss_of_logits_that_overflow(work: str) -> None:
    hidden, w = torch.tensor([[1e4], [-1e4], [0.0]]), torch.tensor([[1.0, -1.0, 0.5]])
    targets = torch.tensor([1, 1, 2])
    expected = functional.cross_entropy(hidden @ w, targets, reduction="sum")
    assert float(kernels.summed_nats(hidden, w, torch.zeros(3), targets)) == pytest.approx(float(expected))
    assert kernels.summed_nats(hidden * float("nan"), w, torch.zeros(3), targets).isnan()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans(), st.sampled_from(WORKS))
@settings(max_examples=40, deadline=None)
def test_multiply(rows: int, inner: int, columns: int, left: bool, right: bool, name: str) -> None:
    a = torch.randn(inner, rows).t() if left else torch.randn(rows, inner)
    b = torch.randn(columns, inner).t() if right else torch.randn(inner, columns)
    with pytest.MonkeyPatch.context() as patch:
        use(name, patch)
        torch.testing.assert_close(kernels.multiply(a, b), a @ b, atol=1e-4, rtol=1e-4)


def test_multiply_in_blocks(work: str) -> None:
    """Longer and wider than what is packed at a time."""
    a, b = torch.randn(900, 70, dtype=torch.float64), torch.randn(900, 1100, dtype=torch.float64)
    assert_close([kernels.multiply(a.t(), b)], [a.t() @ b], 1e-12)
    assert_close([kernels.multiply(b.t(), a), kernels.multiply(a.t().contiguous(), b)], [b.t() @ a, a.t() @ b], 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1, 37, 40_003, 300_001])
def test_sums_and_products_element_by_element(work: str, size: int, dtype: torch.dtype) -> None:
    """As torch has them, whole or in a thread's shares, what lies behind them untouched; and the slope of a product."""
    generator = torch.Generator().manual_seed(size)
    space = torch.randn(2, size + 9, generator=generator, dtype=dtype)
    x, y = space[:, :size]
    before = space.clone()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for threads in (1, 3):
        kernels.use_threads(threads)
        space.copy_(before)
        kernels.mix_(x, y, 0.95, -0.3)
        assert_close([x], [0.95 * before[0, :size] - 0.3 * before[1, :size]], tolerance)
        assert torch.equal(space[1], before[1]) and torch.equal(space[0, size:], before[0, size:])
    kernels.use_threads(None)
    leaf = x.clone().requires_grad_()
    found = kernels.times(leaf, y)
    assert torch.equal(found, x * y)
    assert torch.equal(torch.autograd.grad((found * x).sum(), leaf)[0], x * y)
    turned = torch.arange(12, dtype=dtype).view(3, 4).T  # not in one piece
    assert torch.equal(kernels.times(turned, turned), turned * turned)
    kernels.mix_(turned, torch.ones(4, 3, dtype=dtype), 2.0, 1.0)
    assert torch.equal(turned.T.flatten(), 2 * torch.arange(12, dtype=dtype) + 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 37), (70, 801), (300, 130)])
def test_columns_by_factors_of_their_own(work: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(2))
    factors, before = torch.randn(shape[1], generator=generator, dtype=dtype), x.clone()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for threads in (1, 3):
        kernels.use_threads(threads)
        x.copy_(before)
        kernels.mix_(x, y, 0.9, -0.2, factors)
        assert_close([x, kernels.column_squares(y)], [0.9 * before - 0.2 * y * factors, (y * y).sum(0)], tolerance)
    kernels.use_threads(None)


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 17), (9, 130), (33, 34), (40, 7)])
def test_polar_is_the_iteration_on_the_whole_matrix(work: str, shape: tuple[int, int], times: int) -> None:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x /= torch.linalg.matrix_norm(x)
    given, expected = x.clone(), x
    for _ in range(times):
        square = expected @ expected.T
        expected = 3.4 * expected + (-4.8 * square + 2.0 * square @ square) @ expected
    for threads in (1, 3):
        kernels.use_threads(threads)
        assert_close([kernels.polar(x, (3.4, -4.8, 2.0), times)], [expected], 1e-10)
    kernels.use_threads(None)
    assert torch.equal(x, given)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adamw_is_torchs(level: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    native = use("c", monkeypatch)
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((3, 7), (50_001,))]
    theirs = [p.clone().requires_grad_() for p in ours]
    optimizer = torch.optim.AdamW(theirs, lr=0.01, betas=(0.8, 0.97), eps=1e-6, weight_decay=0.0)
    moments = [{"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)} for p in ours]
    native._library.charrnn_limit(level)
    try:
        for _ in range(5):
            for p in theirs:
                p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
                p.grad[..., 0] = 0
            kernels.adamw_(ours, [p.grad for p in theirs], moments, lr=0.01, betas=(0.8, 0.97), eps=1e-6)
            optimizer.step()
    finally:
        native._library.charrnn_limit(4)
    assert_close(ours, theirs, 1e-12 if dtype == torch.float64 else 1e-6)
    assert_close([one["exp_avg_sq"] for one in moments], [optimizer.state[p]["exp_avg_sq"] for p in theirs], 1e-6)
    assert [float(one["step"]) for one in moments] == [5, 5]


def test_a_forked_process_has_kernels_too() -> None:
    """The parent's helper threads do not live in the child, which must not wait for them."""
    pytest.importorskip("charrnn.kernels.native", reason="no compiled kernel here", exc_type=ImportError)
    script = """if True:
        import os, torch
        from charrnn import kernels
        kernels.use_threads(3)
        a, b = torch.randn(700, 50), torch.randn(50, 90)
        c = kernels.multiply(a, b)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(kernels.multiply(a, b), c) else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False).returncode == 0
