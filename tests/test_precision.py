"""bfloat16: what is multiplied is rounded, and nothing else. By the processor's instruction where it has one, and without it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import FORMS, WAYS, Case, assert_close
from torch import Tensor
from torch.overrides import TorchFunctionMode

from charrnn import kernels, recipe
from charrnn.config import TrainingConfig
from charrnn.errors import UsageError
from charrnn.kernels import plain

LEVELS = [4, 3, 2]  # charrnn_limit: by the processor's registers for it, by its instruction, without


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


class Product(torch.autograd.Function):
    """a @ b of rounded operands; backward rounds the gradient that comes in likewise."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return rounded(a) @ rounded(b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return rounded(grad) @ rounded(b).T, rounded(a).T @ rounded(grad)


class Rounding(TorchFunctionMode):
    """The equations as they are, each product of matrices rounded as above."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.__matmul__, Tensor.matmul, torch.matmul):
            a, b = args
            return Product.apply(a.flatten(0, -2), b).view(*a.shape[:-1], -1)  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


def by_the_equations(*args: Any, **options: Any) -> Any:
    with Rounding():
        return plain.recur(*args, **options)


def by_the_kernel(*args: Any, **options: Any) -> Any:
    return kernels.recur(*args, **options, precision="bfloat16")


@pytest.fixture(params=LEVELS)
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The compiled kernel, at each level."""
    module: ModuleType = pytest.importorskip("charrnn.kernels.native", reason="no compiled kernel here", exc_type=ImportError)
    monkeypatch.setattr(kernels, "_work", lambda: module)
    module._library.charrnn_limit(request.param)
    yield module
    module._library.charrnn_limit(4)


def test_a_product_with_one_is_rounding(native: ModuleType) -> None:
    """To the nearest, ties to even; what is no number or infinite stays so."""
    values = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 3.3e38, 1e-30, 0.0, 65504.0])
    values = torch.cat([values, torch.randn(500, generator=torch.Generator().manual_seed(0))])[:, None]
    one = torch.ones(1, 1)
    assert torch.equal(kernels.multiply(values, one, precision="bfloat16"), rounded(values))
    assert torch.equal(kernels.multiply(one, values.T, precision="bfloat16"), rounded(values).T)
    many = values.expand(-1, 70).contiguous()
    assert torch.equal(kernels.multiply(many, torch.eye(70), precision="bfloat16"), rounded(many))
    strange = torch.tensor([[float("inf"), 0.0], [-float("inf"), 0.0], [0.0, float("nan")]])
    found = kernels.multiply(strange, torch.ones(2, 1), precision="bfloat16")[:, 0]
    assert found[0] == float("inf") and found[1] == -float("inf") and found[2].isnan()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 100), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.booleans(), st.sampled_from(LEVELS))
def test_products_of_every_size(rows: int, inner: int, columns: int, left: bool, right: bool, level: int) -> None:
    native = pytest.importorskip("charrnn.kernels.native", reason="no compiled kernel here", exc_type=ImportError)
    generator = torch.Generator().manual_seed(rows + 100 * inner + 10000 * columns)
    a = torch.randn(rows, inner, generator=generator) if not left else torch.randn(inner, rows, generator=generator).t()
    b = torch.randn(inner, columns, generator=generator) if not right else torch.randn(columns, inner, generator=generator).t()
    native._library.charrnn_limit(level)
    try:
        found = kernels.multiply(a, b, precision="bfloat16")
    finally:
        native._library.charrnn_limit(4)
    torch.testing.assert_close(found.double(), rounded(a.double()) @ rounded(b.double()), atol=2e-5, rtol=1e-6)


def test_products_in_blocks(native: ModuleType) -> None:
    """Longer and wider than what is packed at a time, onto what is there, and symmetric ones of which half is computed."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(901, 70, generator=generator), torch.randn(901, 1100, generator=generator)
    exact = rounded(a.double()).T @ rounded(b.double())
    start = torch.ones(70, 1100)
    torch.testing.assert_close(native.LOW.product_tn([(a, b)], add_to=start).double(), exact + 1, atol=2e-4, rtol=1e-5)
    for precision, tolerance in (("bfloat16", 1e-4), ("float32", 1e-4)):
        x = torch.randn(203, 77, generator=generator)
        found = kernels.multiply(x, x.T, symmetric=True, precision=precision)
        operand = rounded(x.double()) if precision == "bfloat16" else x.double()
        torch.testing.assert_close(found.double(), operand @ operand.T, atol=tolerance, rtol=0)
        assert torch.equal(found, found.T)


@pytest.mark.parametrize("shape", [(5, 9), (70, 200)])
def test_the_polar_factor_by_rounded_products(native: ModuleType, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one product after the other makes it, but for sums that round to another neighbour."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    x /= torch.linalg.matrix_norm(x)
    found = kernels.polar(x, (3.4, -4.8, 2.0), 3, precision="bfloat16")
    monkeypatch.setattr(kernels, "_serves", lambda *parts: False)
    expected = kernels.polar(x, (3.4, -4.8, 2.0), 3, precision="bfloat16")
    exact = kernels.polar(x, (3.4, -4.8, 2.0), 3)
    assert torch.linalg.matrix_norm(found - expected) < 0.2 * torch.linalg.matrix_norm(found - exact)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", [form for form in FORMS if form[0] != "mlp"], ids="-".join)
def test_equal_to_the_equations_with_rounded_products(native: ModuleType, form: tuple[str, str, str], way: str) -> None:
    """Where single and double precision round to different neighbours, which is rare, results part by the last of 8 bits."""
    for steps, size in ((1, 19), (3, 5), (4, 33), (2, 150)):
        found = Case(*form, way, dtype=torch.float32, rows=3, steps=steps, size=size, masked=True).results(by_the_kernel)
        exact = Case(*form, way, dtype=torch.float32, rows=3, steps=steps, size=size, masked=True)
        for part in (*exact.leaves, *exact.mix, exact.options["mask"]):
            part.data = part.data.double()
        expected = exact.results(by_the_equations)
        apart = torch.cat([(a.double() - b).abs().flatten() / max(1.0, float(b.abs().max())) for a, b in zip(found, expected, strict=True)])
        assert float(apart.max()) < 0.02 and float((apart < 1e-5).double().mean()) > 0.9
        if steps == 1:
            assert_close([found[0].double()], [expected[0]], 5e-6)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_double_precision_stays_as_it_is(native: ModuleType, form: tuple[str, str, str]) -> None:
    case = Case(*form, "inputs")
    assert_close(case.results(by_the_kernel), case.results(plain.recur), 1e-12)


@pytest.mark.parametrize("form", [form for form in FORMS if form[0] != "mlp"], ids="-".join)
def test_threads_change_nothing(native: ModuleType, form: tuple[str, str, str]) -> None:
    for rows, size in ((61, 45), (33, 150)):
        results = []
        try:
            for threads in (1, 2, 3):
                kernels.use_threads(threads)
                results.append(Case(*form, "inputs", rows=rows, size=size, dtype=torch.float32).results(by_the_kernel))
        finally:
            kernels.use_threads(None)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_output_layer_and_its_loss(native: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, w, b = (torch.randn(shape, generator=generator).requires_grad_() for shape in ((29, 13), (13, 37), (37,)))
    targets = torch.randint(37, (29,), generator=generator)
    found = kernels.summed_nats(hidden, w, b, targets, precision="bfloat16")
    exact = [part.detach().double().requires_grad_() for part in (hidden, w, b)]
    logits = Product.apply(exact[0], exact[1]) + exact[2]  # type: ignore[no-untyped-call]
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for mine, theirs in zip(torch.autograd.grad(found, (hidden, w, b)), torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-3, rtol=0)
    assert kernels.summed_nats(hidden * float("nan"), w, b, targets, precision="bfloat16").isnan()


def test_which_precision_a_run_gets() -> None:
    auto, single, half = (TrainingConfig(precision=name) for name in ("auto", "float32", "bfloat16"))
    assert [recipe.precision(config, True) for config in (auto, single, half)] == ["bfloat16", "float32", "bfloat16"]
    assert [recipe.precision(config, False) for config in (auto, single)] == ["float32", "float32"]
    with pytest.raises(UsageError, match="--precision bfloat16"):
        recipe.precision(half, False)
