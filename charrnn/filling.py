"""Gaps of a text filled from what stands on both sides of them. No torch.

Candidates are weighed: a beam walks through the text from left to right and spreads in the gaps, and what follows a gap decides which
of its rows live on. They are ranked by ln p of the gaps and of what follows them.

Of a model that reads both ways a second beam comes from the right, and both towers judge what either found: ranked by the mean of
ln p by the one and by the other. What stands before the first gap, in the order that a tower reads in, it reads once; behind the last
one the candidates are read with NEAR characters more, side by side.

Each tower has learnt to predict alone as well. p(token | all others), which both predict together, is no good judge of several tokens:
each of them vouches for its neighbours. (Chains of Gibbs sampling ranked by it, in a model without such towers, found fewer words.)
"""

from __future__ import annotations

import dataclasses
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
NEAR = 32  # characters behind the last gap by which it is judged: 8, 16 and 32 find the same words, and 4 fewer


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
    towers = [Tower(run, pieces, backward=backward) for backward in (False, True)[: len(run.config.towers)]]
    judging = run.config.bidirectional or run.tokenizer.level in ("word", "subword")  # at these the same text may be split otherwise
    scores: dict[tuple[str, ...], float] = {}
    for tower in towers:
        scores = tower.proposed(config, last=SOON if judging else None) | scores
    if not scores:
        raise UsageError("nothing that the model can write fits into the gap")
    if judging:
        scores = dict(zip(scores, np.mean([tower.judged(list(scores)) for tower in towers], axis=0).tolist()))
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


class Tower:
    """The layers that read one way, and a text with gaps. What stands before the first gap that they come to is read once."""

    def __init__(self, run: Run, pieces: list[str | Gap], *, backward: bool = False) -> None:
        self.runtime, self.tokenizer, self.way = Runtime(run.config, run.weights, backward=backward), run.tokenizer, -1 if backward else 1
        self.pieces = list(pieces)
        self.pieces[0 if backward else -1] = str(pieces[0])[-NEAR:] if backward else str(pieces[-1])[:NEAR]
        self.known = self.encoded(str(pieces[-1 if backward else 0]))
        self.begun = _read(self.runtime, [run.tokenizer.start, *self.known])

    def encoded(self, text: str) -> list[int]:
        """A text's tokens in the order that they are read in."""
        found: list[int] = self.tokenizer.model_ids(self.tokenizer.encode(text)).tolist()[:: self.way]
        return found

    def proposed(self, config: FillingConfig, last: int | None = None) -> dict[tuple[str, ...], float]:
        """What a beam puts into the gaps, and ln p of it and of all that it reads after the first gap; behind the last gap these are
        `last` tokens."""
        alphabet = Alphabet(self.tokenizer)
        if self.way < 0:
            alphabet.usable &= ~alphabet.inner & (alphabet.opens == 0)  # bytes of a character make sense in their order alone
            if not alphabet.usable.any():
                return {}
        beam = Beam(self.begun[1], self.begun[0], np.zeros(1), [()])
        _, *rest = self.pieces[:: self.way]
        for number, piece in enumerate(rest, 1):
            if isinstance(piece, Gap):
                beam = spread(self.runtime, alphabet, beam, piece, config.width)
                continue
            for place, token in enumerate(self.encoded(piece)[: last if number == len(rest) else None]):
                if place == SOON:
                    beam = beam.best(config.width)
                nats = beam.nats + log_softmax(beam.logits)[:, token]
                beam = beam.step(self.runtime, np.full(len(nats), token), nats)
        if last is not None:
            beam = beam.best(config.width)
        found: dict[tuple[str, ...], float] = {}
        for fills, score in zip(beam.fills, beam.nats.tolist()):
            words = tuple(self.tokenizer.decode(np.array(part[:: self.way], np.int64)) for part in fills[:: self.way])
            found[words] = max(score, found.get(words, -np.inf))
        return found

    def judged(self, candidates: list[tuple[str, ...]]) -> list[float]:
        """ln p of each candidate and of all that stands between and NEAR behind the gaps, as the tokenizer splits it."""
        rows = [self.encoded("".join(_filled(self.pieces, words))) for words in candidates]
        low, high, known = min(rows), max(rows), len(self.known)  # what the first and the last share, all share
        shared = next((place for place, pair in enumerate(zip(low, high)) if len(set(pair)) > 1 or place == known), min(len(low), known))
        logits, state = self.begun if low[:shared] == self.known else _read(self.runtime, [self.tokenizer.start, *low[:shared]])
        state, logits = _rows(state, np.zeros(len(rows), np.int64)), np.repeat(logits, len(rows), axis=0)
        total = np.zeros(len(rows))
        for place in range(shared, max(map(len, rows))):
            there = np.array([len(row) > place for row in rows])
            tokens = np.array([row[place] if len(row) > place else 0 for row in rows])
            total += np.where(there, log_softmax(logits)[np.arange(len(rows)), tokens], 0)
            logits, state = self.runtime.step(tokens, state)
        found: list[float] = total.tolist()
        return found


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
