"""Another run's weights for a model with a vocabulary of its own."""

from __future__ import annotations

import torch

from charrnn.checkpoint import Run
from charrnn.model import Model
from charrnn.tokenizer import Tokenizer


def copy_weights(model: Model, ours: Tokenizer, other: Run) -> list[str]:
    """Copy another run's weights; token by token where the vocabularies differ. Returns what was kept, new and dropped, in words."""
    theirs = other.tokenizer
    place = {theirs.symbol(token): token for token in range(theirs.size)}
    pairs = [(token, place[ours.symbol(token)]) for token in range(ours.size) if ours.symbol(token) in place]
    here, there = (torch.tensor(side) for side in zip(*pairs))
    tables = ["embedding"] if model.config.embedding else [f"{tower}.0.w_x" for tower in model.config.towers]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            source = torch.from_numpy(other.weights[name]).to(parameter.device)
            if name in tables:
                parameter[here] = source[there]
                parameter[-1] = source[-1]
            elif name == "output.w":
                parameter[:, here] = source[:, there]
            elif name == "output.b":
                parameter[here] = source[there]
            else:
                parameter.copy_(source)
    shared = {theirs.symbol(token) for _, token in pairs}
    new = [ours.symbol(token) for token in range(ours.size) if ours.symbol(token) not in shared]
    dropped = [symbol for symbol in place if symbol not in shared]
    return [f"from {other.path}: {len(shared)} tokens kept, {_listed(new)} new, {_listed(dropped)} dropped"]


def _listed(symbols: list[str]) -> str:
    shown = " ".join(repr(symbol) for symbol in symbols[:20])
    return f"{len(symbols)}" + (f" ({shown}{' …' if len(symbols) > 20 else ''})" if symbols else "")
