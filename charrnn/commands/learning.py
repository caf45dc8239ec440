"""Get a text, and learn it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from charrnn import screen
from charrnn.commands.arguments import Json, Texts
from charrnn.commands.streams import write_path
from charrnn.config import TrainingConfig
from charrnn.errors import UsageError
from charrnn.interrupt import Interrupt
from charrnn.options import from_fields


def fetch(name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False, help="Which text; none lists them.")] = None,
          *, to: Annotated[str, typer.Option(help="The folder to put it in.", metavar="FOLDER")] = "data",
          mirror: Annotated[str | None, typer.Option(help="A folder to look in first.", metavar="FOLDER",
                                                     show_default=False)] = None) -> None:
    """Fetch a known public-domain text, checked by its SHA-256."""
    from charrnn import fetch as fetching

    if name is None:
        screen.catalogue_table({"name": key, "title": entry.title, "author": entry.author, "bytes": entry.bytes, "licence": entry.licence}
                               for key, entry in fetching.catalogue().items())
        return
    with screen.download(name) as progress:
        path = fetching.fetch(name, Path(to), mirror=Path(mirror) if mirror else None, progress=progress)
    write_path(path)


@from_fields(TrainingConfig)
def train(texts: Texts, *,
          out: Annotated[str | None, typer.Option(help="The run's folder. Default: checkpoints/NAME, after the text.", metavar="FOLDER",
                                                  show_default=False)] = None,
          resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder, exactly where it stopped.")] = False,
          init_from: Annotated[str | None, typer.Option(help="Begin with the weights of another run.", metavar="RUN",
                                                        show_default=False)] = None,
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with its reasons, the expected time and memory, and "
                                                "end: nothing is made.")] = False,
          timeout: Annotated[str, typer.Option(help="Among several processes: how long to wait for one that does not answer.",
                                               metavar="TIME")] = "5m",
          json: Json = False, given: dict[str, Any]) -> None:
    """Train a model on texts. Without options: three minutes that suit the text and this machine."""
    from charrnn import checkpoint, machine
    from charrnn import settings as chosen
    from charrnn.beginning import begun, joined
    from charrnn.config import seconds
    from charrnn.sources import name_of
    from charrnn.world import place

    interrupt = Interrupt(lambda text: None if place().get("rank") else screen.warn(text))
    run = Path(out or f"checkpoints/{name_of(texts[0])}")
    if dry_run:
        if resume:
            raise UsageError("--dry-run and --resume exclude each other: a run that is resumed follows the plan it has on record")
        if place().get("rank"):
            return
        return plan(texts, chosen.begun(given, checkpoint.load(init_from) if init_from else None), json=json)
    reading = True
    with joined(seconds(timeout, "timeout")) as world, begun(world, texts, run, given, resume=resume, init_from=init_from) as start:
        machine.prepare()
        from charrnn.training import train as events

        with screen.training_view(json=json and not world.rank, quiet=world.rank > 0, texts=texts) as show:
            stop = lambda: interrupt.signal != 0 or not reading
            for event in events(start.corpus, start.config, run, resume=start.resume, init_from=start.init_from, stop=stop, world=world):
                interrupt.armed = True
                try:
                    if reading:
                        show(event)
                except BrokenPipeError:
                    reading = False  # whoever read it has gone: save, and end
    if not reading:
        raise BrokenPipeError
    if interrupt.signal:
        raise typer.Exit(128 + interrupt.signal)


def plan(texts: list[str], config: TrainingConfig, *, json: bool) -> None:
    """Show what training would do."""
    from charrnn import machine
    from charrnn.corpus import prepare
    from charrnn.text import open_text

    text = open_text(texts, encoding=config.encoding, errors=config.errors)
    corpus = prepare(text, level=config.level, vocab_size=config.vocab_size, valid=config.valid)
    machine.prepare()
    from charrnn.planning import dry

    found = dry(corpus, config)
    screen.warn(*corpus.notes)
    if json:
        screen.json_line(found)
    else:
        screen.plan_table(found)
