"""Gaps of a text filled from what stands on both sides. No torch.

A model that reads one way weighs candidates: a beam walks through the text from left to right, spreads in the gaps, and what follows
a gap decides which of its rows live on; ranked by ln p of the gaps and all that follows them.

A model that reads both ways knows p(token | all others). That is an answer where one token is missing. Where several are, chains of
Gibbs sampling (Geman and Geman 1984) draw each in turn, given all others, with a temperature that falls; what the chains came upon
is ranked by Σ ln p(token of the gaps | all others).
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import FillingConfig
from charrnn.errors import UsageError
from charrnn.gaps import Alphabet, Gap, parts
from charrnn.runtime import Runtime, State

if TYPE_CHECKING:
    from charrnn.checkpoint import Run

Array = NDArray[Any]
Fills = tuple[tuple[int, ...], ...]  # the tokens of each gap

SOON = 8  # tokens after a gap that all its candidates read before the weakest are dropped
CONTEXT = 256  # tokens on either side that matter
SWEEPS, HOT, COLD = 16, 1.0, 0.3  # of Gibbs sampling, and its temperatures


@dataclass(frozen=True)
class Candidate:
    """One way to fill all gaps. `pieces`: text and fills in turn. `share`: its part of the probability of all that were weighed."""

    pieces: tuple[str, ...]
    log_probability: float
    share: float

    @property
    def fills(self) -> tuple[str, ...]:
        """What stands in the gaps now."""
        return self.pieces[1::2]

    def as_json(self) -> dict[str, Any]:
        """What `charrnn fill --json` prints."""
        return {"text": "".join(self.pieces), "fills": self.fills, "log_probability": self.log_probability, "share": self.share}


def fill(run: Run, text: str, config: FillingConfig) -> list[Candidate]:
    """The best candidates for the gaps of a text, the best one first. UsageError where there is no gap, or where none can be filled."""
    pieces = parts(text, config.gap, config.length)
    if run.tokenizer.level == "word":
        for left, right in zip(pieces[:-2:2], pieces[2::2]):
            if _joins(str(left)[-1:]) or _joins(str(right)[:1]):
                raise UsageError(f"{run.path}: at word level a gap stands for whole words, and here it touches a part of one; "
                                 "leave the whole word out, or use a run at char level")
    found = both_ways(run, pieces, config) if run.config.bidirectional else one_way(run, pieces, config)
    scores: dict[tuple[str, ...], float] = {}
    for fills, score in found:
        words = tuple(run.tokenizer.decode(np.array(part, np.int64)) for part in fills)
        scores[words] = max(score, scores.get(words, -np.inf))
    if run.tokenizer.level in ("word", "subword") and not run.config.bidirectional:  # the same text may be split otherwise
        best = sorted(scores, key=lambda words: -scores[words])[: 4 * config.count + 16]
        scores = dict(zip(best, _nats(run, ["".join(_filled(pieces, words)) for words in best], str(pieces[0]))))
    if not scores:
        raise UsageError("nothing that the model can write fits into the gap")
    top = max(scores.values())
    total = sum(np.exp(score - top) for score in scores.values())
    order = sorted(scores, key=lambda words: (-scores[words], words))[: config.count]
    return [Candidate(_filled(pieces, words), float(scores[words]), float(np.exp(scores[words] - top) / total)) for words in order]


def _joins(character: str) -> bool:
    """Whether a word would go on over this character."""
    return character.isalnum() or character in {"_", "'", "’"}


def _filled(pieces: list[str | Gap], words: tuple[str, ...]) -> tuple[str, ...]:
    """The pieces with words for the gaps."""
    return tuple(piece if isinstance(piece, str) else words[number // 2] for number, piece in enumerate(pieces))


def log_softmax(logits: Array) -> Array:
    """logits (…, V) → ln p, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def _read(runtime: Runtime, tokens: list[int]) -> tuple[Array, State]:
    """The logits (1, V) and the state after these tokens, of which there is at least one."""
    state = runtime.zero_state(1)
    for token in tokens:
        logits, state = runtime.step(np.array([token]), state)
    return logits, state


def _rows(state: State, rows: Array) -> State:
    return tuple(tuple(part[rows] for part in layer) for layer in state)


@dataclass(frozen=True)
class Beam:
    """Rows that have read the same parts of the text: `logits` (B, V) of what comes next, `nats` (B) gained so far (ln p), `fills`."""

    state: State
    logits: Array
    nats: Array
    fills: list[Fills]

    def keep(self, rows: Array) -> Beam:
        return Beam(_rows(self.state, rows), self.logits[rows], self.nats[rows], [self.fills[row] for row in rows.tolist()])

    def best(self, count: int) -> Beam:
        return self if len(self.nats) <= count else self.keep(np.argsort(-self.nats, kind="stable")[:count])

    def step(self, runtime: Runtime, tokens: Array, nats: Array) -> Beam:
        logits, state = runtime.step(tokens, self.state)
        return Beam(state, logits, nats, self.fills)


def joined(beams: list[Beam]) -> Beam:
    """All rows of several beams."""
    state = tuple(tuple(np.concatenate(part) for part in zip(*layers)) for layers in zip(*(beam.state for beam in beams)))
    return Beam(state, np.concatenate([beam.logits for beam in beams]), np.concatenate([beam.nats for beam in beams]),
                [fills for beam in beams for fills in beam.fills])


def one_way(run: Run, pieces: list[str | Gap], config: FillingConfig) -> list[tuple[Fills, float]]:
    """Fills and ln p of them and all that follows the first gap, by a beam from left to right."""
    runtime, tokenizer, alphabet = Runtime(run.config, run.weights), run.tokenizer, Alphabet(run.tokenizer)
    logits, state = _read(runtime, [tokenizer.start, *tokenizer.model_ids(tokenizer.encode(str(pieces[0]))).tolist()])
    beam = Beam(state, logits, np.zeros(1), [()])
    for number, piece in enumerate(pieces[1:], 1):
        if isinstance(piece, Gap):
            beam = spread(runtime, alphabet, beam, piece, config.width)
            continue
        ids = tokenizer.model_ids(tokenizer.encode(piece)).tolist()
        for place, token in enumerate(ids if number < len(pieces) - 1 else ids[:CONTEXT]):
            if place == SOON:
                beam = beam.best(config.width)
            nats = beam.nats + log_softmax(beam.logits)[:, token]
            beam = beam.step(runtime, np.full(len(nats), token), nats)
    return list(zip(beam.fills, beam.nats.tolist()))


def spread(runtime: Runtime, alphabet: Alphabet, beam: Beam, gap: Gap, width: int) -> Beam:
    """Every row with what may stand in the gap: the `width` most likely so far after each token; those that end are kept apart."""
    beam = dataclasses.replace(beam, fills=[(*fills, ()) for fills in beam.fills])
    room, owed = np.full(len(beam.nats), gap.high), np.zeros(len(beam.nats), np.int64)
    ended: list[Beam] = []
    for _ in range(4 * gap.high):
        may = alphabet.allowed(room, owed)
        scores = np.where(may, beam.nats[:, None] + log_softmax(beam.logits), -np.inf)
        best = np.argsort(-scores, axis=None, kind="stable")[:width] if scores.size < 4 * width else _largest(scores, width)
        rows, tokens = np.divmod(best, scores.shape[1])
        nats = scores.ravel()[best]
        rows, tokens, nats = rows[np.isfinite(nats)], tokens[np.isfinite(nats)], nats[np.isfinite(nats)]
        if not len(rows):
            break
        room, owed = alphabet.after(tokens, room[rows], owed[rows])
        beam = beam.keep(rows)
        beam = dataclasses.replace(beam, fills=[(*fills[:-1], (*fills[-1], token)) for fills, token in zip(beam.fills, tokens.tolist())])
        beam = beam.step(runtime, tokens, nats)
        done = np.flatnonzero((owed == 0) & (room <= gap.high - gap.low))
        if len(done):
            ended.append(beam.keep(done))
        if (room == 0).all() and (owed == 0).all() and not (alphabet.usable & ~alphabet.inner & (alphabet.begins == 0)).any():
            break
    if not ended:
        raise UsageError("nothing that the model can write fits into the gap")
    return joined(ended)


def _largest(scores: Array, count: int) -> Array:
    found = np.argpartition(-scores, count, axis=None)[:count]
    return found[np.argsort(-scores.ravel()[found], kind="stable")]


def _nats(run: Run, texts: list[str], known: str) -> list[float]:
    """ln p of each text past the tokens that all share with `known`, as the tokenizer splits it."""
    runtime, tokenizer = Runtime(run.config, run.weights), run.tokenizer
    rows = [tokenizer.model_ids(tokenizer.encode(text)).tolist() for text in texts]
    shared = min(max(len(tokenizer.encode(known)) - 2, 0), min(map(len, rows)))
    while shared and any(row[:shared] != rows[0][:shared] for row in rows):
        shared -= 1
    logits, state = _read(runtime, [tokenizer.start, *rows[0][:shared]])
    state, logits = _rows(state, np.zeros(len(rows), np.int64)), np.repeat(logits, len(rows), axis=0)
    total, longest = np.zeros(len(rows)), min(max(map(len, rows)), shared + 2 * CONTEXT)
    for place in range(shared, longest):
        there = np.array([len(row) > place for row in rows])
        tokens = np.array([row[place] if len(row) > place else 0 for row in rows])
        total += np.where(there, log_softmax(logits)[np.arange(len(rows)), tokens], 0)
        logits, state = runtime.step(tokens, state)
    return [float(value) for value in total]


def both_ways(run: Run, pieces: list[str | Gap], config: FillingConfig) -> list[tuple[Fills, float]]:
    """Fills and Σ ln p(token of the gaps | all others), by Gibbs sampling."""
    return Chains(run, pieces, config).found()


class Chains:
    """Both towers, and what stands before the first gap and after the last one read by them once."""

    def __init__(self, run: Run, pieces: list[str | Gap], config: FillingConfig) -> None:
        self.run, self.config, self.tokenizer, self.alphabet = run, config, run.tokenizer, Alphabet(run.tokenizer)
        self.towers = [Runtime(run.config, run.weights, backward=side) for side in (False, True)]
        self.random = np.random.Generator(np.random.PCG64(config.seed or 0))
        ids = [self.tokenizer.model_ids(self.tokenizer.encode(piece)).tolist() if isinstance(piece, str) else [] for piece in pieces]
        self.gaps = [piece for piece in pieces if isinstance(piece, Gap)]
        self.between = ids[2:-1:2]  # the tokens between two gaps
        start = self.tokenizer.start
        self.ends = [_read(tower, tokens) for tower, tokens in zip(self.towers, ([start, *ids[0]], [start, *ids[-1][::-1]]))]

    def found(self) -> list[tuple[Fills, float]]:
        """What the chains came upon, each with its score."""
        groups: dict[tuple[int, ...], list[Fills]] = {}
        for fills in self.drafts():
            groups.setdefault(tuple(map(len, fills)), []).append(fills)
        out: dict[Fills, float] = {}
        for sizes, several in groups.items():
            out |= self.sampled(sizes, several)
        return list(out.items())

    def drafts(self) -> list[Fills]:
        """A first filling of all gaps for each chain, drawn from the forward tower alone: it gives each its division into tokens."""
        rows, (logits, state) = self.config.width, self.ends[0]
        beam = Beam(_rows(state, np.zeros(rows, np.int64)), np.repeat(logits, rows, axis=0), np.zeros(rows), [()] * rows)
        for number, gap in enumerate(self.gaps):
            beam = self._drafted(beam, gap)
            for token in self.between[number] if number < len(self.between) else []:
                beam = beam.step(self.towers[0], np.full(rows, token), beam.nats)
        return beam.fills

    def _drafted(self, beam: Beam, gap: Gap) -> Beam:
        rows, alphabet = len(beam.nats), self.alphabet
        beam = dataclasses.replace(beam, fills=[(*fills, ()) for fills in beam.fills])
        room, owed = gap.low + np.arange(rows) % (gap.high - gap.low + 1), np.zeros(rows, np.int64)
        at_once = (np.arange(rows) // (gap.high - gap.low + 1)) % 2 == 0  # half of them in one token where that can be
        while ((room > 0) | (owed > 0)).any():
            going = (room > 0) | (owed > 0)
            may = alphabet.allowed(room, owed) & ((alphabet.begins > 0) | (owed > 0)[:, None])
            whole = may & (alphabet.begins == room[:, None]) & (alphabet.opens == 0)
            may = np.where((at_once & whole.any(axis=1))[:, None], whole, may)
            if not may[going].any(axis=1).all():
                raise UsageError("nothing that the model can write fits into the gap")
            tokens = self._drawn(beam.logits, may, 1.0)
            kept, (logits, state) = beam, self.towers[0].step(tokens, beam.state)
            room, owed = (np.where(going, new, old) for new, old in zip(alphabet.after(tokens, room, owed), (room, owed)))
            beam = Beam(
                tuple(tuple(np.where(going[:, None], new, old) for new, old in zip(*layers)) for layers in zip(state, kept.state)),
                np.where(going[:, None], logits, kept.logits), kept.nats,
                [(*fills[:-1], (*fills[-1], token)) if go else fills for fills, token, go in zip(kept.fills, tokens.tolist(), going)])
        return beam

    def _drawn(self, logits: Array, may: Array, temperature: float) -> Array:
        """A token (B) for each row, of those that it may have (B, V)."""
        noise = -np.log(-np.log(self.random.random(logits.shape) + 1e-300) + 1e-300)  # Gumbel's: its largest is a draw
        drawn: Array = np.where(may, logits + temperature * noise, -np.inf).argmax(axis=1)
        return drawn

    def sampled(self, sizes: tuple[int, ...], fills: list[Fills]) -> dict[Fills, float]:
        """Gibbs sampling from these fillings on, whose gaps have these many tokens; what came up, with its score."""
        row: list[int] = []
        free: list[int] = []
        for number, size in enumerate(sizes):
            free.extend(range(len(row), len(row) + size))
            row += [0] * size + (self.between[number] if number < len(self.between) else [])
        row = row[: free[-1] + 1]
        tokens = np.tile(np.array(row, np.int64), (len(fills), 1))
        tokens[:, free] = [[token for part in one for token in part] for one in fills]
        seen = {tuple(one) for one in tokens[:, free].tolist()}
        shares = self._shares(1, tokens, free)
        for sweep in range(SWEEPS):
            temperature = 0.0 if sweep >= SWEEPS - 2 else HOT + (COLD - HOT) * sweep / (SWEEPS - 3)
            shares = self._sweep(sweep % 2, tokens, free, shares, temperature)
            seen |= {tuple(one) for one in tokens[:, free].tolist()}
        rows = np.tile(np.array(row, np.int64), (len(seen), 1))
        rows[:, free] = sorted(seen)
        scores = self.scores(rows, free)
        bounds = np.cumsum((0, *sizes)).tolist()
        return {tuple(tuple(one[a:b]) for a, b in itertools.pairwise(bounds)): score
                for one, score in zip(rows[:, free].tolist(), scores.tolist())}

    def _sweep(self, side: int, tokens: Array, free: list[int], others: dict[int, Array], temperature: float) -> dict[int, Array]:
        """Draw each free token anew, in the direction of tower `side`, given `others`: the other tower's logits at each place. `tokens`
        are overwritten; the logits of this tower are returned."""
        places = range(tokens.shape[1]) if side == 0 else range(tokens.shape[1] - 1, -1, -1)
        logits, state = self._at_the_end(side, len(tokens))
        shares: dict[int, Array] = {}
        for place in places:
            if place in others:
                shares[place] = logits
                may = self.alphabet.usable & (self.alphabet.kind == self.alphabet.kind[tokens[:, place]][:, None])
                tokens[:, place] = self._drawn(logits + others[place], may, temperature)
            logits, state = self.towers[side].step(tokens[:, place], state)
        return shares

    def _shares(self, side: int, tokens: Array, free: list[int]) -> dict[int, Array]:
        """The logits (B, V) of tower `side` at each free place."""
        places = range(tokens.shape[1]) if side == 0 else range(tokens.shape[1] - 1, -1, -1)
        logits, state = self._at_the_end(side, len(tokens))
        shares: dict[int, Array] = {}
        for place in places:
            if place in free:
                shares[place] = logits
            logits, state = self.towers[side].step(tokens[:, place], state)
        return shares

    def _at_the_end(self, side: int, rows: int) -> tuple[Array, State]:
        logits, state = self.ends[side]
        return np.repeat(logits, rows, axis=0), _rows(state, np.zeros(rows, np.int64))

    def scores(self, tokens: Array, free: list[int]) -> Array:
        """Σ ln p(token | all others) over the free places, for each row."""
        total = np.zeros(len(tokens))
        left, right = (self._shares(side, tokens, free) for side in (0, 1))
        for place in free:
            total += log_softmax(left[place] + right[place])[np.arange(len(tokens)), tokens[:, place]]
        return total
