"""The library's front door: plain arguments in, results out. What each setting means is written in `charrnn.config`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import checkpoint
from charrnn.config import SamplingConfig

if TYPE_CHECKING:
    from charrnn.checkpoint import Run
    from charrnn.events import Event


def generate(run: Run | str | Path, prompt: str = "", **settings: Any) -> str:
    """The text that a run writes after `prompt` (which is not repeated); settings are SamplingConfig's, `count` left at 1."""
    from charrnn.sampling import generate as pieces

    run = checkpoint.load(run) if isinstance(run, (str, Path)) else run
    return "".join(piece.text for piece in pieces(run, SamplingConfig(prompt=prompt, **settings)))


def evaluate(run: Run | str | Path, texts: str | Path | Sequence[str | Path], *, device: str = "cpu",
             dynamic: bool = False) -> dict[str, Any]:
    """The figures of a text (files or folders) under a run's model, as `charrnn evaluate --json` names them; with `dynamic` also those
    of the model as it learns from the text it reads."""
    from charrnn import evaluation
    from charrnn.dynamic import figures
    from charrnn.text import open_text

    run = checkpoint.load(run) if isinstance(run, (str, Path)) else run
    text = open_text([texts] if isinstance(texts, (str, Path)) else texts)
    return figures(run, text, device=device) if dynamic else evaluation.evaluate(run, text, device=device)


def train(texts: str | Path | Sequence[str | Path], run: str | Path, *, resume: bool = False, init_from: str | Path | None = None,
          stop: Callable[[], bool] = lambda: False, timeout: str = "5m", **settings: Any) -> Iterator[Event]:
    """Train on files or folders into the folder `run`; yields `charrnn.events`. Settings are TrainingConfig's.

    resume: the settings are those that the run recorded; only device and threads may be others. UsageError when there is
    a run in the folder and resume is not set. LockedError while another process trains in it. Where torchrun started several processes,
    each calls this; LostError when one of them does not answer for as long as `timeout` says.
    """
    from charrnn.beginning import begun, joined
    from charrnn.config import seconds

    texts, run = [texts] if isinstance(texts, (str, Path)) else texts, Path(run)
    with joined(seconds(timeout, "timeout")) as world, begun(world, texts, run, settings, resume=resume, init_from=init_from) as start:
        from charrnn.training import train as events

        yield from events(start.corpus, start.config, run, resume=start.resume, init_from=start.init_from, stop=stop, world=world)
