"""_sequence.c through ctypes: the same functions as `rowwise`, whose head tells the buffers. Importing it fails where it was not built.

Those that multiply take `low`: float32 is rounded to bfloat16 before it is multiplied; sums are float32 all the same.
"""

from __future__ import annotations

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from charrnn.kernels.buffers import Lease
from charrnn.kernels.form import ACTIVATIONS, CELLS, Form

ROWS_TIMES, TRANSPOSED_TIMES, SCATTER, SOFTMAX = range(4)
SUM, PRODUCT, ADAMW, SQUARES, COLUMNS = range(5)
WIDEST = 16  # elements of the widest vector: packed matrices are padded to it


class SequenceCall(ctypes.Structure):
    """struct sequence"""

    _fields_ = [(name, ctypes.c_int64) for name in ("element", "cell", "activation", "reset_after", "backward", "threads", "steps", "rows",
                                                    "size", "gates_step", "extra_step")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("tokens", "source", "w_h", "b_h", "h", "c", "outputs", "gates", "extra", "mask",
                                                      "dropped", "d_outputs", "d_h", "d_c", "packed")]


class ProductCall(ctypes.Structure):
    """struct product"""

    _fields_ = [(name, ctypes.c_int64) for name in ("element", "kind", "threads", "m", "n", "k", "lda", "ldc", "b_down", "b_right", "add",
                                                    "symmetric", "block", "column_units")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("tokens", "a", "b", "c", "bias", "packed")]


class ElementsCall(ctypes.Structure):
    """struct elements"""

    _fields_ = [(name, ctypes.c_int64) for name in ("element", "kind", "threads", "count", "rows")]
    _fields_ += [(name, ctypes.c_double) for name in ("a", "b", "rate", "even", "epsilon")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "y", "out", "m", "v")]


class PolarCall(ctypes.Structure):
    """struct polar"""

    _fields_ = [(name, ctypes.c_int64) for name in ("element", "threads", "n", "m", "times")]
    _fields_ += [(name, ctypes.c_double) for name in ("a", "b", "c")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("x", "out", "square", "packed")]


def _open() -> ctypes.CDLL:
    here = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = here / f"_sequence{suffix}"
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.charrnn_sequence.argtypes = [ctypes.POINTER(SequenceCall)]
            library.charrnn_product.argtypes = [ctypes.POINTER(ProductCall)]
            library.charrnn_each.argtypes = [ctypes.POINTER(ElementsCall)]
            library.charrnn_polar.argtypes = [ctypes.POINTER(PolarCall)]
            return library
    raise ImportError(f"{here} holds no compiled _sequence")


_library = _open()
_threads = 0  # as many as torch has


def use_threads(count: int) -> None:
    """So many from now on."""
    global _threads
    _threads = count


def threads() -> int:
    """How many there are."""
    return _threads or torch.get_num_threads()


def _pointer(part: Tensor | None) -> int | None:
    return None if part is None else part.data_ptr()


def _element(dtype: torch.dtype, low: bool) -> int:
    """FLOAT, DOUBLE or BFLOAT16 of _sequence.c."""
    return 1 if dtype == torch.float64 else 2 if low else 0


def bfloat16() -> str:
    """What the processor multiplies bfloat16 with; "" where it does not: there `low` is slow."""
    return ("", "AVX512_BF16", "AMX")[_library.charrnn_bfloat16()]


def _padded(columns: int) -> int:
    return -(-columns // WIDEST) * WIDEST


def _multiply(kind: int, sizes: tuple[int, int, int], a: Tensor, b: Tensor | None, out: Tensor, *, strides: tuple[int, int] = (0, 0),
              bias: Tensor | None = None, tokens: Tensor | None = None, add: bool = False, symmetric: bool = False,
              low: bool = False) -> Tensor:
    m, n, k = sizes
    lease = Lease()
    packed = lease.tensor(out.dtype, _padded(k) * _padded(n)) if kind == ROWS_TIMES else None
    call = ProductCall(_element(out.dtype, low), kind, threads(), m, n, k, a.stride(0), out.stride(0), *strides, add,
                       symmetric, 0, 0, _pointer(tokens), a.data_ptr(), _pointer(b), out.data_ptr(), _pointer(bias), _pointer(packed))
    failed = _library.charrnn_product(call)
    lease.end()
    if failed:
        raise MemoryError("kernels: no memory for a product's scratch")
    return out


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None, symmetric: bool = False,
            low: bool = False) -> Tensor:
    """a (M, K) @ b (K, N) + bias (N). `symmetric`: the caller knows that the result is, so only half of it is computed."""
    sizes = (a.shape[0], b.shape[1], b.shape[0])
    out = a.new_empty(sizes[:2]) if out is None else out
    return _multiply(ROWS_TIMES, sizes, a, b, out, strides=(b.stride(0), b.stride(1)), bias=bias, symmetric=symmetric, low=low)


def product_nt(a: Tensor, b: Tensor, *, out: Tensor | None = None, low: bool = False) -> Tensor:
    """a (M, K) @ b (N, K)ᵀ."""
    return product(a, b.t(), out=out, low=low)


def product_tn(pairs: list[tuple[Tensor, Tensor]], *, add_to: Tensor | None = None, low: bool = False) -> Tensor:
    """Σ aᵀ (K, M) @ b (K, N) over the pairs (a, b): a weight's gradient. `add_to` gets it added, in place."""
    sizes = (pairs[0][0].shape[1], pairs[0][1].shape[1])
    out = pairs[0][0].new_empty(sizes) if add_to is None else add_to
    for n, (a, b) in enumerate(pairs):
        _multiply(TRANSPOSED_TIMES, (*sizes, a.shape[0]), a, b, out, strides=(b.stride(0), b.stride(1)),
                  add=n > 0 or add_to is not None, low=low)
    return out


def polar(x: Tensor, quintic: tuple[float, float, float], times: int, *, low: bool = False) -> Tensor:
    """What `times` steps of X → (a + b X Xᵀ + c (X Xᵀ)²) X make of x (N, M), N ≤ M, contiguous."""
    n, m = x.shape
    lease, out = Lease(), torch.empty_like(x)
    square, packed = lease.tensor(x.dtype, 4 * n * n), lease.tensor(x.dtype, _padded(n) * _padded(m))
    failed = _library.charrnn_polar(PolarCall(_element(x.dtype, low), threads(), n, m, times, *quintic,
                                              *map(_pointer, (x, out, square, packed))))
    lease.end()
    if failed:
        raise MemoryError("kernels: no memory for a product's scratch")
    return out


def scatter(rows: int, tokens: Tensor, grads: Tensor) -> Tensor:
    """(rows, N): the sum of the rows of `grads` (T·B, N) that each id of `tokens` (T·B) owns."""
    out = grads.new_zeros(rows, grads.shape[1])
    return _multiply(SCATTER, (rows, grads.shape[1], grads.shape[0]), grads, None, out, tokens=tokens)


def column_sum(grads: Tensor) -> Tensor:
    """(N): the sum over the rows of (M, N)."""
    out = grads.new_zeros(1, grads.shape[1])
    return _multiply(SCATTER, (1, grads.shape[1], grads.shape[0]), grads, None, out)[0]


def softmax_(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """What each target (N) costs in nats, (N) float64; `gradient` leaves its slope in place of the logits (N, V)."""
    nats = torch.empty(len(logits), dtype=torch.float64)
    _multiply(SOFTMAX, (0, logits.shape[1], logits.shape[0]), nats, None, logits, tokens=targets, add=gradient)
    return nats


def mix(a: float, x: Tensor, b: float, y: Tensor, *, out: Tensor) -> None:
    """out = a x + b y; all of one shape and contiguous, `out` may be x or y."""
    _each(SUM, x, y, out, (a, b))


def mix_columns(a: float, x: Tensor, b: float, y: Tensor, factors: Tensor) -> None:
    """x = a x + b y, column j of y (N, M) times factors (M), in place; all contiguous."""
    _each(COLUMNS, None, y, x, (a, b), factors)


def column_squares(x: Tensor) -> Tensor:
    """The sums of the squares in each column of x (N, M), contiguous: (M)."""
    out = x.new_empty(x.shape[1])
    _each(SQUARES, None, x, out, ())
    return out


def scale_(x: Tensor, factor: float) -> None:
    """x times a number, in place; contiguous. What is infinite becomes NaN."""
    mix(factor, x, 0.0, x, out=x)


def times(x: Tensor, y: Tensor) -> Tensor:
    """x y, element by element; both contiguous."""
    out = torch.empty_like(x)
    _each(PRODUCT, x, y, out, ())
    return out


def adamw(p: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *, step: float, lr: float, betas: tuple[float, float],
          eps: float) -> None:
    """torch's update number `step` without decay, in place."""
    first, second = betas
    _each(ADAMW, None, grad, p, (first, second, lr / (1 - first**step), (1 - second**step) ** -0.5, eps), exp_avg, exp_avg_sq)


def _each(kind: int, x: Tensor | None, y: Tensor, out: Tensor, numbers: tuple[float, ...], m: Tensor | None = None,
          v: Tensor | None = None) -> None:
    rows = len(y) if kind in (SQUARES, COLUMNS) else 1
    numbers = (*numbers, *[0.0] * (5 - len(numbers)))
    call = ElementsCall(_element(out.dtype, False), kind, threads(), y.numel() // max(rows, 1), rows, *numbers,
                        *map(_pointer, (x, y, out, m, v)))
    if _library.charrnn_each(call):
        raise MemoryError("kernels: no memory for a sum")


def _walk(form: Form, backward: bool, low: bool, w_h: Tensor, outputs: Tensor, steps: tuple[int, int], *parts: Tensor | None) -> None:
    lease = Lease()
    size, width = w_h.shape
    packed = lease.tensor(w_h.dtype, width // size * _padded(size) * _padded(size))
    tokens, source, b_h, h, c, gates, *others = map(_pointer, parts)
    call = SequenceCall(_element(w_h.dtype, low), CELLS.index(form.cell), ACTIVATIONS.index(form.activation), form.reset == "after",
                        backward, threads(), outputs.shape[0], outputs.shape[1], size, *steps, tokens, source,
                        w_h.data_ptr(), b_h, h, c, outputs.data_ptr(), gates, *others, packed.data_ptr())
    failed = _library.charrnn_sequence(call)
    lease.end()
    if failed:
        raise MemoryError("kernels: no memory for a sequence's scratch")


def forward(form: Form, source: Tensor, tokens: Tensor | None, w_h: Tensor, b_h: Tensor | None, state: tuple[Tensor, ...],
            outputs: Tensor, gates: Tensor | None, extra: Tensor | None, mask: Tensor | None = None, dropped: Tensor | None = None, *,
            low: bool = False) -> tuple[Tensor, ...]:
    """Fills outputs, and gates, extra and dropped where given; returns the final state. `source` may be `gates` itself."""
    steps = [0 if part is None else part.stride(0) for part in (gates, extra)]
    if form.cell != "rnn":  # what only backward would need has one step's worth of memory
        gates = w_h.new_empty(outputs.shape[1], w_h.shape[1]) if gates is None else gates
        extra = torch.empty_like(state[0]) if extra is None else extra
    c = state[1] if form.cell == "lstm" else None
    _walk(form, False, low, w_h, outputs, (steps[0], steps[1]), tokens, source, b_h, state[0], c, gates, extra, mask, dropped, None,
          None, None)
    if form.cell != "lstm":
        return (outputs[-1].clone(),)
    assert extra is not None
    return outputs[-1].clone(), extra[-1].clone() if steps[1] else extra


def backward(form: Form, gates: Tensor, extra: Tensor | None, w_h: Tensor, state: tuple[Tensor, ...], outputs: Tensor,
             d_outputs: Tensor | None, d_final: tuple[Tensor | None, ...], mask: Tensor | None = None, *,
             low: bool = False) -> tuple[Tensor, ...]:
    """Turns gates (and extra of a gru that resets after) into gradients; returns those of the initial state."""
    d_state = [torch.zeros_like(state[0]) if part is None else part.clone(memory_format=torch.contiguous_format) for part in d_final]
    d_c, c = (d_state[1], state[1]) if form.cell == "lstm" else (None, None)
    _walk(form, True, low, w_h, outputs, (0, 0), None, None, None, state[0], c, gates, extra, mask, None, d_outputs, d_state[0], d_c)
    return tuple(d_state)


LOW = SimpleNamespace(  # in this module's place: the same functions, `low` where they multiply
    **{function.__name__: functools.partial(function, low=True)
       for function in (product, product_nt, product_tn, polar, forward, backward)},
    scatter=scatter, column_sum=column_sum, softmax_=softmax_, scale_=scale_)
