"""What a model pays for a text, its state carried from the first token to the last."""

from __future__ import annotations

import bz2
import lzma
import math
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from charrnn.checkpoint import Run
from charrnn.corpus import Corpus, Fingerprint, tokenized
from charrnn.errors import CheckpointError
from charrnn.kernels import nats_at
from charrnn.metrics import CHUNK, ROWS, Score
from charrnn.model import Model, State
from charrnn.text import Text

WARM_UP = 256  # tokens a row reads before those it is scored on
CHUNK_BOTH = 512  # of a model that reads both ways, whose backward tower is warmed up on WARM_UP tokens for each chunk


class Tokens(Protocol):
    """Tokens that can be read in pieces: a corpus.Store, or an array in memory."""

    @property
    def count(self) -> int: ...
    def read(self, start: int, stop: int) -> NDArray[Any]: ...


class Held:
    """Tokens in memory."""

    def __init__(self, tokens: NDArray[Any]) -> None:
        self.tokens, self.count = tokens, len(tokens)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.tokens[start:stop]


def score(model: Model, tokens: Tokens, *, rows: int | None = None) -> float:
    """The nats of all tokens, the first one predicted from the zero state and the start symbol. Of a bidirectional model: the sum of
    −ln p(token | all others), which is no code length, as each token is told of by its neighbours and tells of them.
    """
    return scores(model, tokens, (1.0,), rows=rows)[0]


@torch.no_grad()
def scores(model: Model, tokens: Tokens, temperatures: Sequence[float], *, rows: int | None = None) -> list[float]:
    """The same where the logits are divided by each of these temperatures.

    A long text is cut into rows that are read side by side; each row but the first is warmed up on the WARM_UP tokens before
    its own, so that its state is all but the one that a single pass would have brought along (a test holds the difference
    below 0.1 %). rows=1 is the single pass.
    """
    if rows is None:
        rows = max(1, min(ROWS, tokens.count // (8 * WARM_UP)))
    length = tokens.count // rows
    starts = np.arange(rows) * length
    warm = min(WARM_UP, length)
    state = model.zero_state(rows)
    if rows > 1:
        _, others = _read(model, tokens, starts[1:] - warm, warm, model.zero_state(rows - 1))
        state = tuple(tuple(torch.cat([part[:1], other]) for part, other in zip(layer, others_layer))
                      for layer, others_layer in zip(state, others))
    nats, state = _read(model, tokens, starts, length, state, temperatures)
    last = tuple(tuple(part[-1:] for part in layer) for layer in state)
    rest, _ = _read(model, tokens, starts[-1:] + length, tokens.count - rows * length, last, temperatures)
    return (nats + rest).tolist()  # type: ignore[no-any-return]


def _read(model: Model, tokens: Tokens, starts: NDArray[np.integer], length: int, state: State,
          temperatures: Sequence[float] = ()) -> tuple[NDArray[np.float64], State]:
    """Read `length` tokens of each row from its start on; the nats paid for them at each temperature and the state after."""
    nats, w, both = np.zeros(len(temperatures)), model.output["w"], model.config.bidirectional and bool(temperatures)
    chunk = CHUNK_BOTH if both else CHUNK
    for offset in range(0, length, chunk):
        size = min(chunk, length - offset)
        begins = starts + offset - 1
        block = _block(model, tokens, begins, size + 2 if both else size + 1)
        inputs, targets = block[:size], block[1 : size + 1]
        if both:
            hidden, state = model.both(inputs, block[2:], state, _from_the_right(model, tokens, begins + size + 2))
        else:
            hidden, state = model.hidden(inputs, state)
        if temperatures:
            nats += nats_at(hidden.flatten(0, 1), w, model.output["b"], targets.flatten(), temperatures)
    return nats, state


def _block(model: Model, tokens: Tokens, begins: NDArray[np.integer], size: int) -> torch.Tensor:
    """(size, B) tokens from each of `begins` on; the start symbol stands before the first one and after the last."""
    block = np.full((size, len(begins)), model.config.vocabulary, np.int64)
    for row, begin in enumerate(begins.tolist()):
        piece = tokens.read(max(begin, 0), min(begin + size, tokens.count))
        block[max(-begin, 0) : max(-begin, 0) + len(piece), row] = piece
    return torch.from_numpy(block).to(model.output["w"].device)


def _from_the_right(model: Model, tokens: Tokens, begins: NDArray[np.integer]) -> State:
    """The backward tower's state (B) after it has read WARM_UP tokens down to place `begins`, or fewer at the text's end."""
    state = model.zero_state(len(begins))
    sizes = np.clip(tokens.count + 1 - begins, 0, WARM_UP)
    for size in set(sizes.tolist()) - {0}:
        rows = np.flatnonzero(sizes == size)
        _, read = model.hidden(_block(model, tokens, begins[rows], size).flip(0), model.zero_state(len(rows)), backward=True)
        for parts, found in zip(state, read):
            for part, other in zip(parts, found):
                part[torch.from_numpy(rows)] = other
    return state


def evaluate(run: Run, text: Text, *, device: str = "cpu", corpus: Corpus | None = None) -> dict[str, Any]:
    """Score a text under a run's model; the figures of `charrnn evaluate --json`, `references` and `seen` beside them. `corpus`: the text
    as the run's tokens, where they are made already.

    A bidirectional model's figures are no code length and no perplexity: their names begin with `pseudo_`, and nothing stands beside them.

    `references` gives bits per character for scale: [name, value] of a uniform and a unigram model of the run's tokens and of the
    standard compressors. `seen`: the share of the text that stands in the training text as well.
    """
    began = time.monotonic()
    tokenizer, corpus = run.tokenizer, corpus or tokenized(text, run.tokenizer)
    part = corpus.training
    paid = part.unknown * tokenizer.unknown_nats
    model = Model(run.config).to(device)
    model.load(run.weights)
    result = Score(score(model, part.store) + paid, part.tokens, text.characters, text.bytes)
    if math.isnan(result.nats):
        raise CheckpointError(f"{run.path}: the model's weights overflow: it was not trained, or was changed since")
    seen = Fingerprint(*run.fingerprint).overlap(text.pieces())
    if text.digest == run.text["digest"]:
        seen = 1.0 - (run.text["validation_characters"] / run.text["characters"] if run.text["held_out"] else 0.0)
    seconds = time.monotonic() - began
    figures = {
        "nats": result.nats, "nats_per_token": result.nats_per_token, "nats_per_character": result.nats_per_character,
        "perplexity": result.perplexity, "bits_per_character": result.bits_per_character, "bits_per_byte": result.bits_per_byte}
    if run.config.bidirectional:
        figures = {f"pseudo_{name}": value for name, value in figures.items()}
    return {
        "run": str(run.path), "level": tokenizer.level, "tokens": result.tokens, "characters": result.characters, "bytes": result.bytes,
        **figures, "unknown_characters": part.unknown, "seconds": seconds, "seen": seen,
        "references": [] if run.config.bidirectional else references(run.unigram, corpus.unigram, paid, text),
    }


def references(unigram: NDArray[np.int64], counts: NDArray[np.int64], paid: float, text: Text) -> list[tuple[str, float]]:
    """Bits per character of the same text by simpler means; `counts` (V) says how often each token stands in it."""
    p = (unigram + 0.5) / (unigram + 0.5).sum()  # half a sight of each token, so that none is impossible
    uniform = float(counts.sum() * math.log(len(counts)))
    by_counts = float(-(counts * np.log(p)).sum())
    nats = {"uniform": uniform + paid, "unigram": by_counts + paid}
    bits = {name: value / math.log(2) for name, value in nats.items()} | {
        name: 8.0 * _compressed(text.pieces(), compressor) for name, compressor in (
            ("gzip", zlib.compressobj(9, zlib.DEFLATED, 31)), ("bzip2", bz2.BZ2Compressor(9)),
            ("xz", lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)))}
    return [(name, value / max(text.characters, 1)) for name, value in bits.items()]


def _compressed(pieces: Iterable[str], compressor: Any) -> int:
    """Bytes that a compressor makes of a text."""
    return sum(len(compressor.compress(piece.encode())) for piece in pieces) + len(compressor.flush())
