"""Both sides made equal: the same weights and data must give the same losses and the same weights after each update."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks import ours, plain, trainers
from benchmarks.shapes import Shape
from charrnn.model import Layer, Model


@torch.no_grad()
def copy(source: plain.Plain, model: Model) -> None:
    """torch.nn's weights into a model of charrnn; a gru resets after the product there."""
    V, H = source.embedding.weight.shape[0], source.recurrent.hidden_size
    parts = dict(source.recurrent.named_parameters())
    assert model.embedding is not None
    model.embedding[:V] = source.embedding.weight
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer) and layer.w_h is not None
        w_x, w_h, b_x, b_h = (parts[f"{name}_l{number}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        layer.w_x.copy_(w_x.T)
        layer.w_h.copy_(w_h.T)
        joined = slice(None, 2 * H if layer.cell == "gru" else None)
        layer.b.copy_(b_x)
        layer.b[joined] += b_h[joined]
        if layer.b_h is not None:
            layer.b_h.copy_(b_h[2 * H :])
    model.output["w"].copy_(source.output.weight.T)
    model.output["b"].copy_(source.output.bias)


def pair(shape: Shape) -> tuple[plain.Plain, Model]:
    """The two models in float64 with the same weights."""
    torch.manual_seed(3)
    left = plain.Plain(shape.cell, shape.vocabulary, shape.embedding, shape.hidden, shape.layers).double()
    right = Model(ours.config(shape)).double()
    still_second_bias(left)
    copy(left, right)
    return left, right


def still_second_bias(model: plain.Plain) -> None:
    """torch.nn has two biases where one does the same. Trained both, their sum would move twice as far: the second is held at 0 here."""
    H = model.recurrent.hidden_size
    for name, parameter in model.recurrent.named_parameters():
        if name.startswith("bias_hh"):
            kept = torch.ones_like(parameter)
            kept[: 2 * H if isinstance(model.recurrent, torch.nn.GRU) else None] = 0
            with torch.no_grad():
                parameter.mul_(kept)

            def hook(grad: Tensor, kept: Tensor = kept) -> Tensor:
                return grad * kept

            parameter.register_hook(hook)


def difference(shape: Shape, steps: int = 4, clip: float = plain.CLIP) -> float:
    """The largest difference, over several updates as they are measured, of the losses and of the weights; in float64."""
    left, start = pair(shape)
    adamw, state = plain.optimizer(left), None
    trainer = trainers.trainer(shape, clip=clip)
    right = trainer.model.double()
    right.load_state_dict(start.state_dict())
    trainer.state = right.zero_state(shape.rows)
    shadow = Model(right.config).double()
    furthest = 0.0
    for window in trainers.windows(shape, steps):
        loss, state = plain.step(left, adamw, torch.from_numpy(window.inputs), torch.from_numpy(window.targets), state, clip)
        furthest = max(furthest, abs(loss - trainer.update(window)))
        copy(left, shadow)
        for (name, a), b in zip(right.named_parameters(), shadow.parameters()):
            rows = slice(0, shape.vocabulary if name == "embedding" else None)  # charrnn's row for the start symbol has no counterpart
            furthest = max(furthest, float((a[rows] - b[rows]).detach().abs().max()))
    return furthest


def smallest(cell: str) -> Shape:
    """Small and odd."""
    return Shape(cell, 7, 2, rows=5, window=6, vocabulary=37)
