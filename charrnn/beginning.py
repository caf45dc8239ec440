"""What a training begins with: its folder claimed, its settings decided, its text made ready; the same for each process of a world."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn import checkpoint, machine, settings
from charrnn.checkpoint import Run
from charrnn.config import TrainingConfig
from charrnn.corpus import Corpus, prepare
from charrnn.disk import claimed
from charrnn.errors import UsageError
from charrnn.text import open_text
from charrnn.world import World, place


def joined(timeout: float) -> World:
    """The world that torchrun started this process in; alone without it. `timeout`: the seconds to wait for a process that does not
    answer. UsageError, LostError."""
    here = place()
    if not here:
        return World()
    machine.prepare()
    from charrnn.distributed import Joined

    return Joined.joined(timeout, **here)


@dataclass(frozen=True)
class Beginning:
    """`init_from`, the run to start from, is read by rank 0 alone."""

    corpus: Corpus
    config: TrainingConfig
    resume: bool
    init_from: Run | None


@contextlib.contextmanager
def begun(world: World, texts: Sequence[str | Path], run: Path, given: Mapping[str, Any], *, resume: bool = False,
          init_from: str | Path | None = None) -> Iterator[Beginning]:
    """‖ Begin to train into the folder `run`, which rank 0 claims until the end. Raises as `settings.decide` and `prepare` do."""
    if world.size > 1 and "-" in map(str, texts):
        raise UsageError("-: stdin can be read by one process only; give a file")
    with contextlib.nullcontext() if world.rank else claimed(run):
        other, values = None, None
        if not world.rank:
            if world.again and any((run / name).is_file() for name in (checkpoint.RESUME, checkpoint.PREVIOUS)):
                resume, init_from = True, None
            other = checkpoint.load(init_from) if init_from is not None else None
            values = settings.decide(run, given, resume=resume, init_from=other).as_json()
            world.begun()
        config, resume = TrainingConfig.from_json(world.shared(values)), world.shared(resume)

        def made() -> Corpus:
            text = open_text(texts, encoding=config.encoding, errors=config.errors)
            return prepare(text, level=config.level, vocab_size=config.vocab_size, valid=config.valid)

        corpus = world.in_turn(made)
        world.alike({"the text": corpus.digest, "the tokenizer": corpus.tokenizer.digest}, "give all hosts the same files")
        yield Beginning(corpus, config, resume, other)
