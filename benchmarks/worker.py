"""One side in a process of its own: `python -m benchmarks.worker JSON`, told on stdin when it is its turn.

It prints a line of facts once it is ready, and for each line {"steps", "seconds"} that it reads the seconds of each step.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.shapes import CELLS, Shape

Step = Callable[[], object]
Facts = dict[str, Any]
CHUNK = 25  # tokens that count as a step while sampling


def train_plain(shape: Shape) -> tuple[Step, Facts]:
    import torch

    from benchmarks import plain

    torch.manual_seed(0)
    model = plain.Plain(shape.cell, shape.vocabulary, shape.embedding, shape.hidden, shape.layers)
    adamw, state = plain.optimizer(model), None
    windows = itertools.cycle([(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in ours.windows(shape)])

    def step() -> None:
        nonlocal state
        _, state = plain.step(model, adamw, *next(windows), state)

    return step, torch_facts()


def train_ours(shape: Shape, reset: str = "after", own: bool = False, precision: str = "auto") -> tuple[Step, Facts]:
    ours.prepare()
    from benchmarks import trainers
    from charrnn import kernels, machine, recipe
    from charrnn.config import TrainingConfig

    precision = recipe.precision(TrainingConfig(precision=precision), kernels.bfloat16())
    threads = kernels.use_threads(recipe.threads(ours.config(shape, reset), shape.rows, shape.window, machine.cores()))
    trainer, windows = trainers.trainer(shape, reset, own=own, precision=precision), itertools.cycle(trainers.windows(shape))
    facts = {**torch_facts(), "threads": threads, "backend": kernels.backend(), "precision": precision}
    return trainer.step if own else lambda: trainer.update(next(windows)), facts


def sample_plain(shape: Shape) -> tuple[Step, Facts]:
    import torch

    from benchmarks import plain

    torch.manual_seed(0)
    model = plain.Plain(shape.cell, shape.vocabulary, shape.embedding, shape.hidden, shape.layers).eval()
    tokens = plain.write(model)

    def step() -> None:
        for _ in range(CHUNK):
            next(tokens)

    return step, {**torch_facts(), "tokens": CHUNK}


def sample_ours(shape: Shape, streams: int = 1, reset: str = "after") -> tuple[Step, Facts]:
    pieces = ours.write(ours.run(shape, reset=reset), streams)

    def step() -> None:
        for _ in range(CHUNK * streams):
            next(pieces)

    return step, {"tokens": CHUNK * streams, "torch": "torch" in sys.modules}


def product(shape: Shape) -> tuple[Step, Facts]:
    from benchmarks import limits

    step, flops = limits.product(shape)
    return step, {**torch_facts(), "flops": flops}


def reading(shape: Shape) -> tuple[Step, Facts]:
    from benchmarks import limits

    once, size, way = limits.reading(shape.bytes_a_token)

    def step() -> None:
        for _ in range(CHUNK):
            once()

    return step, {**torch_facts(), "bytes": size * CHUNK, "way": way}


def bandwidth() -> tuple[Step, Facts]:
    from benchmarks import limits

    step, size = limits.copying()
    return step, {**torch_facts(), "bytes": size}


def memory_bandwidth() -> tuple[Step, Facts]:
    from benchmarks import limits

    step, size, way = limits.reading(1 << 28)
    return step, {**torch_facts(), "bytes": size, "way": way}


def same() -> tuple[Step, Facts]:
    ours.prepare()
    from benchmarks.same import difference, smallest

    return lambda: None, {cell: difference(smallest(cell)) for cell in CELLS}


def sample_memory(shape: Shape, tokens: int) -> tuple[Step, Facts]:
    pieces = ours.write(ours.run(shape), length=tokens)
    for _ in itertools.islice(pieces, 1_000):
        pass
    start = resident()
    for _ in pieces:
        pass
    return lambda: None, {"start": start, "end": resident()}


def read_text(path: str, level: str, cache: str) -> tuple[Step, Facts]:
    """A text made ready, into the store or out of it; the seconds without Python's start."""
    from charrnn.corpus import prepare
    from charrnn.text import open_text

    began = time.perf_counter()
    corpus = prepare(open_text([path]), level=level, cache=Path(cache))
    seconds = time.perf_counter() - began
    return lambda: None, {"seconds": seconds, "tokens": corpus.training.tokens + corpus.validation.tokens, "resident": resident()}


def score_passes(run: str, path: str, characters: int) -> tuple[Step, Facts]:
    """The end of a text scored in rows and in a single pass."""
    ours.prepare()
    from charrnn import checkpoint, kernels
    from charrnn.evaluation import Held, score
    from charrnn.model import Model

    kernels.use_threads(None)
    trained = checkpoint.load(run)
    model = Model(trained.config)
    model.load(trained.weights)
    ids = Held(trained.tokenizer.model_ids(trained.tokenizer.encode(Path(path).read_text(encoding="utf-8")[-characters:])))
    facts: Facts = {"tokens": ids.count}
    for name, rows in (("rows", None), ("single", 1)):
        began = time.perf_counter()
        facts[name] = score(model, ids, rows=rows)
        facts[f"{name}_seconds"] = time.perf_counter() - began
    return lambda: None, facts


def torch_facts() -> Facts:
    import torch

    return {"threads": torch.get_num_threads(), "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT")}


def resident() -> int:
    """Bytes of this process that are in memory; where the system does not say, the most that ever were."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


KINDS: dict[str, Callable[..., tuple[Step, Facts]]] = {
    made.__name__: made for made in (train_plain, train_ours, sample_plain, sample_ours, product, reading, bandwidth,
                                     memory_bandwidth, same, sample_memory, read_text, score_passes)}


def turn(step: Step, steps: int, seconds: float) -> list[float]:
    """One step that is not counted, then at least so many and for at least so long; the seconds of each."""
    step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < steps or time.perf_counter() < end:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    """Make what the argument names, warm it up, and take turns until stdin ends."""
    given = json.loads(sys.argv[1])
    kind, warm_up = given.pop("kind"), given.pop("warm_up", 2)
    if "shape" in given:
        given["shape"] = Shape(**given["shape"])
    step, facts = KINDS[kind](**given)
    sys.stdout.write(json.dumps({**facts, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        for _ in range(warm_up):
            step()
        warm_up = 0
        sys.stdout.write(json.dumps(turn(step, asked["steps"], asked["seconds"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
