"""Look into a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from charrnn import screen
from charrnn.commands.arguments import Json, RunArgument
from charrnn.commands.streams import known, write_path
from charrnn.errors import UsageError

MOST = 1 << 24  # units' values of one kind that are held at once
LONGEST = 50_000  # characters that are looked at
SHORTEST = 200  # of them that are, however large the model is
PAGE = 5_000  # characters that a report shows


def inspect(run: RunArgument, *,
            text: Annotated[str | None, typer.Option(help="Colour this text by the model's surprise at each character; - reads stdin.",
                                                     metavar="TEXT", show_default=False)] = None,
            unit: Annotated[str | None, typer.Option(help="Colour it by a hidden unit instead, or by an lstm's memory: 2:17, 2:c17.",
                                                     metavar="LAYER:N", show_default=False)] = None,
            gate: Annotated[str | None, typer.Option(help="Colour it by the mean of a gate: reset, update, input, forget, output; "
                                                     "1:forget in layer 1.", metavar="NAME", show_default=False)] = None,
            backward: Annotated[bool, typer.Option("--backward", help="Units and gates of the layers that read from the right, of a run "
                                                   "that reads both ways.")] = False,
            find: Annotated[bool, typer.Option("--find", help="Find units that track something visible in the text.")] = False,
            gradients: Annotated[bool, typer.Option("--gradients", help="Show how far back the gradient reaches, on the text or on what "
                                                    "the model writes.")] = False,
            json: Json = False) -> None:
    """Show what is in a run: configuration, parameters, vocabulary, text, curve, figures, sizes on disk; or look inside while it reads."""
    from charrnn import checkpoint

    views = [name for name, on in (("--unit", unit is not None), ("--gate", gate is not None), ("--find", find),
                                ("--gradients", gradients)) if on]
    if len(views) > 1:
        raise UsageError(f"{' and '.join(views)} exclude each other: give one")
    if backward and (gradients or not views):
        raise UsageError("--backward says whose units and gates are shown: give --unit, --gate or --find too")
    if views and text is None and not gradients:
        raise UsageError(f"{views[0]} needs a text to look at: give --text")
    model = checkpoint.load(run)
    notes: list[str] = []
    read = None if text is None else known(text, model.tokenizer, notes, "--text")
    found: Any
    show: Callable[[Any], None]
    if gradients:
        from charrnn import machine

        machine.prepare()
        from charrnn import kernels
        from charrnn.gradients import of

        kernels.use_threads(1)  # for small products
        found = of(model, read)
        show = screen.gradient_view
    elif read is None:
        from charrnn.inspection import describe

        found, show = describe(model), screen.inspect_view
    elif find:
        from charrnn import units

        reading = inner(model, read, notes, backward)
        found, show = {"run": str(model.path), "units": units.find(reading)}, lambda found: screen.units_table(found["units"])
    else:
        reading = inner(model, read, notes, backward)
        values = reading.unit(unit) if unit is not None else reading.gate(gate) if gate is not None else None
        kind = "surprise" if values is None else "gate" if unit is None else "unit"
        nats = "pseudo-nats" if reading.back else "nats"
        name = {"unit": f"unit {unit}", "gate": f"{gate} gate, mean", "surprise": f"surprise, {nats}"}[kind]
        found = reading.as_json(values)
        show = lambda _: screen.coloured_text(reading, (reading.nats if values is None else values).tolist(), kind=kind, name=name)
    screen.warn(*notes)
    if json:
        screen.json_line(found)
    else:
        show(found)


def inner(run: Any, text: str, notes: list[str], backward: bool = False) -> Any:
    """The run's reading of a text, as much of it as can be held, seen from the layers that read backward or from the others. `notes` as
    `shortened`."""
    from charrnn.trace import read

    reading = read(run, shortened(text, fitting(run), notes))
    return reading.turned() if backward else reading


def fitting(run: Any) -> int:
    """How many characters of a text can be looked at: all values of all units are held."""
    units: int = run.config.hidden * run.config.layers * len(run.config.towers)
    return max(SHORTEST, min(LONGEST, MOST // units))


def shortened(text: str, most: int, notes: list[str]) -> str:
    """The beginning of a text that is longer than `most`; a line more in `notes` says so."""
    if len(text) > most:
        notes.append(f"--text: the first {most:,} of {len(text):,} characters are looked at")
    return text[:most]


def report(run: RunArgument, *,
           out: Annotated[str | None, typer.Option(help="Where to write it. Default: report.html in the run's folder.", metavar="FILE.html",
                                                   show_default=False)] = None,
           text: Annotated[str | None, typer.Option(help="What the model is shown reading; - reads stdin. Default: the beginning of "
                                                    "what was held out.", metavar="TEXT", show_default=False)] = None,
           plot: Annotated[str | None, typer.Option(help="Draw its pictures into this file instead, by matplotlib; with --out, too.",
                                                    metavar="FILE.png|svg", show_default=False)] = None) -> None:
    """Write a page about a run, for a browser: curves, samples, surprise, gates and states, the cell to step through."""
    from charrnn import checkpoint, machine
    from charrnn.disk import write_whole
    from charrnn.report import own_text, page

    for option, given, like in (("--out", out, "report.html"), ("--plot", plot, "run.png")):
        if given is not None and (not Path(given).name or Path(given).is_dir()):
            raise UsageError(f"{option} {given!r}: not the name of a file; give one, such as {like}")
    model = checkpoint.load(run)
    machine.prepare()
    from charrnn import gradients, kernels

    kernels.use_threads(1)  # for small products
    notes: list[str] = []
    told = None if text is None else shortened(known(text, model.tokenizer, notes, "--text"), min(PAGE, fitting(model)), notes)
    reach = gradients.of(model, None)
    if plot is not None:
        from charrnn.plots import figure

        write_whole(Path(plot), figure(inner(model, own_text(model)[0] if told is None else told, notes), reach, Path(plot)))
        write_path(Path(plot))
    if out is not None or plot is None:
        path = Path(out) if out is not None else model.path / "report.html" if model.path.is_dir() else model.path.with_suffix(".html")
        write_whole(path, page(model, told, gradients=reach).encode())
        write_path(path)
    screen.warn(*notes)
