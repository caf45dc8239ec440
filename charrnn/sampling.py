"""Text drawn from a model, token by token. No torch."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn import machine
from charrnn.config import SamplingConfig
from charrnn.errors import CheckpointError, UsageError
from charrnn.runtime import Rows, Runtime
from charrnn.stepper import Stepper, library

if TYPE_CHECKING:
    from charrnn.checkpoint import Run
    from charrnn.tokenizer import Tokenizer

Array = NDArray[Any]  # of floats
RECENT = 64  # tokens that the repetition penalty looks back on


def penalised(logits: Array, recent: NDArray[np.integer], penalty: float) -> Array:
    """logits (V) with the `recent` tokens made less likely: divided by the penalty, or multiplied where negative (Keskar et al. 2019)."""
    out, seen = logits.copy(), np.unique(recent)
    out[seen] = np.where(out[seen] > 0, out[seen] / penalty, out[seen] * penalty)
    return out


def softmax(logits: Array) -> Array:
    """logits (…, V) → probabilities, in float64."""
    p: Array = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    p /= p.sum(axis=-1, keepdims=True)
    return p


def top_k(p: Array, k: int) -> Array:
    """p (B, V) with all but the k most likely at 0; of equals, the earlier ones stay."""
    if not 0 < k < p.shape[1]:
        return p
    out, keep = np.zeros_like(p), np.argsort(-p, axis=1, kind="stable")[:, :k]
    np.put_along_axis(out, keep, np.take_along_axis(p, keep, 1), 1)
    return out


def top_p(p: Array, share: float) -> Array:
    """p (B, V) with only the fewest most likely left that make up `share` of the whole (nucleus sampling, Holtzman et al. 2020)."""
    if share >= 1:
        return p
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, 1)
    before = ranked.cumsum(axis=1) - ranked
    out = np.zeros_like(p)
    np.put_along_axis(out, order, np.where(before < share * p.sum(axis=1, keepdims=True), ranked, 0), 1)
    return out


def min_p(p: Array, share: float) -> Array:
    """p (B, V) with those at 0 that are below `share` of the most likely one's probability."""
    return np.where(p >= share * p.max(axis=1, keepdims=True), p, 0) if share > 0 else p


def filtered(logits: Array, config: SamplingConfig) -> Array:
    """logits (B, V) → the probabilities that are drawn from, rows summing to 1. Temperature 0 leaves the most likely one."""
    if config.temperature == 0:
        one: Array = np.eye(logits.shape[1])[logits.argmax(axis=1)]
        return one
    p = softmax(logits / max(config.temperature, 1e-6))
    if config.top_k == 0 and config.top_p == 1 and config.min_p == 0:
        return p
    p = min_p(top_p(top_k(p, config.top_k), config.top_p), config.min_p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def draw(p: Array, uniform: Array) -> NDArray[np.int64]:
    """A token for each row of p (B, V), given a number (B) between 0 and 1 for each."""
    rising = p.cumsum(axis=1)
    chosen = (rising <= (uniform * rising[:, -1])[:, None]).sum(axis=1)
    most = p.shape[1] - 1 - (p[:, ::-1] > 0).argmax(axis=1)
    drawn: NDArray[np.int64] = np.minimum(chosen, most)  # a rounded sum must not reach past what is possible
    return drawn


def drawn_by(logits: Array, recent: NDArray[np.integer], uniform: Array, config: SamplingConfig) -> tuple[NDArray[np.int64], Array]:
    """A token for each row of logits (B, V), and what it costs in nats by the model itself; `recent` (B, n) for the penalty."""
    own = softmax(logits)
    if config.repetition_penalty != 1:
        logits = np.stack([penalised(row, seen, config.repetition_penalty) for row, seen in zip(logits, recent)])
    drawn = draw(filtered(logits, config), uniform)
    return drawn, -np.log(own[np.arange(len(drawn)), drawn])


class Piece(NamedTuple):
    """A piece of sample number `sample` (from 0); with its last one, the figures of the whole come as `end`."""

    sample: int
    text: str
    end: dict[str, Any] | None = None


class Writer:
    """One sample as it grows: decodes it, holds back what may be the beginning of a stop text, draws its numbers, and counts."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), seed: int = 0) -> None:
        self.decoder, self.stops, self.seed = tokenizer.decoder(), stops, seed
        self.uniform = np.random.Generator(np.random.PCG64(seed)).random
        self.held = ""
        self.tokens, self.nats = 0, 0.0
        self.stopped: str | None = None

    def feed(self, token: int) -> str:
        """The text that is now certain."""
        return self.release(self.decoder.feed(token))

    def release(self, text: str, last: bool = False) -> str:
        if not self.stops:
            return text
        self.held += text
        found = [(at + len(stop), at, stop) for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if found:
            _, at, self.stopped = min(found)  # the first to be complete; of two that end together, the longer
            out, self.held = self.held[:at], ""
            return out
        keep = 0 if last else max((n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        out, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return out

    def finish(self) -> str:
        """What was held back, when no more comes."""
        return self.release(self.decoder.flush(), last=True) if self.stopped is None else ""

    def end(self) -> dict[str, Any]:
        """The figures of the whole sample."""
        return {"tokens": self.tokens, "nats": self.nats, "stopped": self.stopped, "seed": self.seed}


def model_of(run: Run, count: int) -> Stepper | Rows:
    """The run's model at the start of a text, for one row or `count` of them: in C where that was built and can, else in NumPy."""
    runtime, silent = Runtime(run.config, run.weights), run.tokenizer.escape
    if library() is not None and runtime.table.dtype == np.float32 and all(np.isfinite(part).all() for part in run.weights.values()):
        return Stepper(runtime, many=count > 1, silent=silent, threads=machine.cores())
    return Rows(runtime, silent=silent)


def begun(run: Run, tokens: Sequence[int], rows: int) -> tuple[Stepper | Rows, Array]:
    """The run's model after the start of a text and these tokens, in each of the rows; and its logits (B, V) of what comes next."""
    model = model_of(run, rows)
    for token in (run.tokenizer.start, *tokens):
        logits = model.step([token])
    model.repeat(rows)
    return model, logits.repeat(rows, axis=0)


def generate(run: Run, config: SamplingConfig, prompt: str | None = None) -> Iterator[Piece]:
    """Draw `config.count` samples side by side; yields their pieces as they come, never half a character.

    Sample i is drawn with seed + i, whatever the others do. `prompt` (by default the configuration's) is not repeated in the pieces.
    The nats are those of the model itself for what was drawn, before temperature, penalty and filters. UsageError for a model that
    reads both ways.
    """
    if run.config.bidirectional:
        raise UsageError(f"{run.path}: this model reads both ways: it needs the text after a gap as well as before it, so it cannot go on "
                         f"from a prompt; fill gaps with it: charrnn fill {run.path} 'the ____ machine'")
    return _drawn(run, config, config.prompt if prompt is None else prompt)


def _drawn(run: Run, config: SamplingConfig, prompt: str) -> Iterator[Piece]:
    """What `generate` yields."""
    tokenizer, rows = run.tokenizer, config.count
    seed = secrets.randbits(32) if config.seed is None else config.seed
    told = tokenizer.model_ids(tokenizer.encode(prompt))
    model, logits = begun(run, told.tolist(), rows)
    recent = np.tile(told[-RECENT:], (rows, 1))
    live = [(row, Writer(tokenizer, config.stop, seed + row)) for row in range(rows)]
    for left in reversed(range(config.length)):
        uniform = [writer.uniform() for _, writer in live]
        if isinstance(model, Stepper) and _only_temperature(config):
            drawn, paid = model.draw(config.temperature, uniform)
        else:
            drawn, paid = drawn_by(logits, recent, np.array(uniform), config)
        if config.repetition_penalty != 1:
            recent = np.concatenate([recent, drawn[:, None]], axis=1)[:, -RECENT:]
        for (row, writer), token, nats in zip(live, drawn.tolist(), paid.tolist()):
            if math.isnan(nats):
                raise CheckpointError(f"{run.path}: the model's weights overflow: it was not trained, or was changed since")
            writer.tokens += 1
            writer.nats += nats
            text = writer.feed(token)
            if writer.stopped is not None:
                yield Piece(row, text, writer.end())
            elif text:
                yield Piece(row, text)
        if config.stop and any(writer.stopped is not None for _, writer in live):
            going = [place for place, (_, writer) in enumerate(live) if writer.stopped is None]
            live, drawn, recent = [live[place] for place in going], drawn[going], recent[going]
            if not live:
                return
            model.keep(going)
        if left:
            logits = model.step(drawn)
    for row, writer in live:
        text = writer.finish()
        yield Piece(row, text, writer.end())


def _only_temperature(config: SamplingConfig) -> bool:
    """Whether nothing but the temperature changes the model's own distribution."""
    return (config.top_k, config.top_p, config.min_p, config.repetition_penalty) == (0, 1, 0, 1)
