"""The command line: options to configuration to library to screen. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import functools
import inspect as inspect_module
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

import charrnn
from charrnn.config import CompareConfig, FillingConfig, SamplingConfig, TrainingConfig
from charrnn.errors import CharRNNError, DataError, LostError, StorageError, ToldError, UsageError
from charrnn.interrupt import Interrupt, Stopped
from charrnn.options import from_fields

app = typer.Typer(name="charrnn", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  context_settings={"help_option_names": ["-h", "--help"]})

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout instead of talk.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="A run's folder, or its .safetensors file.")]
Texts = Annotated[list[str], typer.Argument(metavar="TEXT", show_default=False,
                                            help="Files, folders (every .txt below them), or - for stdin; gzip and zstd too.")]

LONGEST_PROMPT = 4 << 20  # bytes


def _version(show: bool) -> None:
    if show:
        typer.echo(f"charrnn {charrnn.__version__}")
        raise typer.Exit()


@app.callback()
def charrnn_command(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                          help="Print the version and end.")] = False) -> None:
    """Train a recurrent language model on any text, sample from it, measure it."""


class BrokenPipe(Exception):
    """Nobody reads our output any more. (Typer would make a plain BrokenPipeError its own.)"""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command of the application."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except BrokenPipeError:
            raise BrokenPipe from None
        except KeyboardInterrupt:  # likewise Typer's own
            raise Stopped(signal.SIGINT, "stopped") from None

    called.__signature__ = inspect_module.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return app.command()(called)


@command
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
    from charrnn import checkpoint, machine, screen
    from charrnn import settings as chosen
    from charrnn.beginning import begun, joined
    from charrnn.config import seconds
    from charrnn.text import name_of
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
    from charrnn import machine, screen
    from charrnn.corpus import prepare
    from charrnn.text import open_text

    text = open_text(texts, encoding=config.encoding, errors=config.errors)
    corpus = prepare(text, level=config.level, vocab_size=config.vocab_size, valid=config.valid)
    machine.prepare()
    from charrnn.planning import dry

    found = dry(corpus, config)
    for note in corpus.notes:
        screen.warn(note)
    if json:
        screen.json_line(found)
    else:
        screen.plan_table(found)


@command
@from_fields(SamplingConfig)
def sample(run: RunArgument, *,
           novelty: Annotated[bool, typer.Option("--novelty", help="Say how much of it is copied from the training text.")] = False,
           dynamic: Annotated[bool, typer.Option("--dynamic", help="First let the model learn from the prompt, which may be a whole file: "
                                                 "it then writes more in its manner.")] = False,
           raw: Annotated[bool, typer.Option("--raw", help="Let a terminal obey control characters in the text; by default it shows "
                                             "them. A pipe always gets the text as it is.")] = False,
           json: Json = False, given: dict[str, Any]) -> None:
    """Write text with a trained model."""
    from charrnn import checkpoint, screen
    from charrnn.sampling import generate

    config = SamplingConfig(**given)
    model = checkpoint.load(run)
    prompt = known(_prompt(config.prompt), model.tokenizer)
    if dynamic:
        model = learnt(model, prompt)
    texts = [""] * config.count
    ends: list[dict[str, Any]] = [{}] * config.count
    write = Writer(sys.stdout, raw)
    if not json:
        write(prompt)
    for piece in generate(model, config, prompt):
        texts[piece.sample] += piece.text
        ends[piece.sample] = piece.end or {}
        if piece.sample == 0 and not json:  # the first one streams, the others wait for their turn
            write(piece.text)
    copied = _copied(model, texts) if novelty else [{}] * len(texts)
    if json:
        for text, end, more in zip(texts, ends, copied):
            screen.json_line({"prompt": prompt, "text": text, **end, **more})
        return
    write.end_line()
    for text in texts[1:]:
        write("\n" + prompt + text)
        write.end_line()
    if novelty:
        for more in copied:
            screen.novelty_line(more)


def _copied(run: Any, texts: list[str]) -> list[dict[str, Any]]:
    """What each text has of the training text; null and a line on stderr where that is not at hand."""
    from charrnn import screen
    from charrnn.novelty import copies

    try:
        known_text = copies(run)
    except DataError as error:
        screen.warn(f"--novelty: {error}")
        return [{"longest_copy": None, "copied_share": None}] * len(texts)
    return [known_text.of(text) for text in texts]


@command
@from_fields(FillingConfig)
def fill(run: RunArgument,
         text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False, help="The text with its gaps, or - for stdin.")], *,
         json: Json = False, given: dict[str, Any]) -> None:
    """Fill the gaps of a text, such as 'the time ___ by H. G. ____', from what stands on both sides of them."""
    from charrnn import checkpoint, screen
    from charrnn.filling import fill as candidates

    config = FillingConfig(**given)
    model = checkpoint.load(run)
    found = candidates(model, known(_prompt(text, "the text"), model.tokenizer, "the text", mark=config.gap), config)
    if json:
        for one in found:
            screen.json_line(one.as_json())
    else:
        screen.filling_table((one.pieces, one.log_probability, one.share) for one in found)


def learnt(model: Any, prompt: str) -> Any:
    """The model after it has learnt from the prompt. Only this way of sampling needs torch."""
    from charrnn import machine, screen

    if not prompt:
        raise UsageError("--dynamic: there is no prompt to learn from; give one with --prompt TEXT, or a file: --prompt - < FILE")
    machine.prepare()
    from charrnn.dynamic import adapted

    machine.use_threads(None)
    return adapted(model, prompt, progress=screen.Progress("learning from the prompt"))


class Writer:
    """Text to stdout as it comes. On a terminal, control characters that a model may have learnt are shown, not obeyed, unless `raw`."""

    def __init__(self, stream: TextIO, raw: bool = False) -> None:
        self.stream, self.shown, self.last = stream, stream.isatty() and not raw, "\n"

    def __call__(self, text: str) -> None:
        from charrnn.visible import visible

        self.last = text[-1:] or self.last
        self.stream.write(visible(text) if self.shown else text)
        self.stream.flush()

    def end_line(self) -> None:
        """So that what follows, a shell's prompt or the next sample, begins a line."""
        if self.last != "\n":
            self("\n")


def _prompt(given: str, option: str = "--prompt") -> str:
    """A text of the command line, read from stdin where it is -. DataError when that is not UTF-8, or does not end."""
    if given != "-":
        return given
    if sys.stdin is None:
        raise DataError(f"stdin: closed: there is no {option} to read")
    data = sys.stdin.buffer.read(LONGEST_PROMPT + 1)
    if len(data) > LONGEST_PROMPT:
        raise DataError(f"stdin: {option} is longer than {LONGEST_PROMPT:,} bytes; give its last part")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: {option} is not UTF-8 at byte {error.start}") from None


def known(prompt: str, tokenizer: Any, option: str = "--prompt", mark: str = "") -> str:
    """The prompt in the Unicode form that the model knows most of, composed or not; what it has never seen is named on stderr, but for
    `mark`, which is no part of the text."""
    import unicodedata

    from charrnn import screen

    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option}: not UTF-8 at character {error.start}") from None
    unknown = tokenizer.unknown(prompt.replace(mark, "") if mark else prompt)
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, prompt)
        there = tokenizer.unknown(other.replace(mark, "") if mark else other) if unknown else []
        if unknown and len(there) < len(unknown):
            prompt, unknown = other, there
            screen.warn(f"the prompt is read in Unicode form {form}, as the training text is written")
    if unknown:
        screen.warn(f"the model has never seen {' '.join(map(repr, unknown[:20]))}: read as an unknown symbol")
    return prompt


@command
@from_fields(CompareConfig)
def compare(texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", show_default=False,
                                                              help="Files, folders (every .txt below them), or - for stdin; gzip "
                                                              "and zstd too.")] = None, *,
            recall: Annotated[bool, typer.Option("--recall", help="Measure memory alone: keys, noise for a known distance, recall. It "
                                                 "needs no text.")] = False,
            out: Annotated[str | None, typer.Option(help="Keep the runs in this folder.", metavar="FOLDER", show_default=False)] = None,
            json: Json = False, given: dict[str, Any]) -> None:
    """Train mlp, rnn, gru, lstm, a deep and a bidirectional lstm on one text; compare cost, quality, memory, and what textbooks say."""
    import dataclasses
    import tempfile

    from charrnn import machine, screen
    from charrnn.corpus import prepare
    from charrnn.text import open_text

    config = CompareConfig(**given)
    if not texts and not recall:
        raise UsageError("compare needs a TEXT, or --recall")
    if recall and config.time is not None:
        raise UsageError("--recall counts steps: give --steps, not --time")
    corpus = prepare(open_text(texts), level="char", vocab_size=None, valid=0.1) if texts else None
    machine.prepare()
    from charrnn import comparison
    from charrnn import recall as memory

    machine.use_threads(config.threads)
    if recall:
        rows = []
        for row in memory.recall(steps=config.steps, hidden=config.hidden, seed=config.seed):
            rows.append(row)
            if json:
                screen.json_line(row)
            else:
                screen.note(f"recall: {row['model']} done")
        if not json:
            screen.recall_table(rows, memory.KEYS, memory.SHOWN)
    if corpus is None:
        return
    with tempfile.TemporaryDirectory() as spare:
        found = {}
        for one in comparison.compare(corpus, config, Path(out or spare)):
            found[one.model] = one
            if json:
                screen.json_line(one.as_json())
            else:
                screen.note(f"{one.model}: {one.parameters:,} parameters, {one.steps:,} steps in {one.seconds:.0f} s")
        said = comparison.claims(found)
        if json:
            screen.json_line({"claims": [{"claim": claim, "measured": measured, "holds": holds} for claim, measured, holds in said]})
        else:
            screen.comparison_table([dataclasses.asdict(one) for one in found.values()], said)


@command
def evaluate(run: RunArgument, texts: Texts, *,
             encoding: Annotated[str, typer.Option(help="How the text's bytes are to be read.", metavar="NAME")] = "utf-8",
             errors: Annotated[str, typer.Option(help="strict or replace: bytes that are not in that encoding.",
                                                 metavar="NAME")] = "strict",
             device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.", metavar="DEVICE")] = "cpu",
             threads: Annotated[int | None, typer.Option(help="Processor threads. Default: one a core.", metavar="N",
                                                         show_default=False)] = None,
             dynamic: Annotated[bool, typer.Option("--dynamic", help="Also let the model learn from the text as it reads it, each token "
                                                   "scored before it is learnt from.")] = False,
             json: Json = False) -> None:
    """Score texts with a trained model: perplexity, bits per character, bits per byte."""
    from charrnn import checkpoint, machine, screen
    from charrnn.text import open_text

    settings = TrainingConfig(encoding=encoding, errors=errors, device=device, threads=threads)
    model = checkpoint.load(run)
    text = open_text(texts, encoding=settings.encoding, errors=settings.errors)
    machine.prepare()
    from charrnn import dynamic as learning
    from charrnn import evaluation

    machine.use_threads(settings.threads)
    device = str(machine.device(settings.device))
    figures = learning.figures(model, text, device=device, progress=screen.Progress("dynamic evaluation")) if dynamic else (
        evaluation.evaluate(model, text, device=device))
    for note in text.notes:
        screen.warn(note)
    seen = figures.pop("seen")
    if seen > 0.02:
        screen.warn(f"about {100 * seen:.0f} % of this text stands in the training text: these are not held-out figures")
    if json:
        del figures["references"]
        screen.json_line(figures)
    else:
        screen.evaluation_table(figures)


@command
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
    from charrnn import checkpoint, screen

    views = [name for name, on in (("--unit", unit), ("--gate", gate), ("--find", find), ("--gradients", gradients)) if on]
    if len(views) > 1:
        raise UsageError(f"{' and '.join(views)} exclude each other: give one")
    if backward and not (unit or gate or find):
        raise UsageError("--backward says whose units and gates are shown: give --unit, --gate or --find too")
    if views and text is None and not gradients:
        raise UsageError(f"{views[0]} needs a text to look at: give --text")
    model = checkpoint.load(run)
    read = None if text is None else known(_prompt(text, "--text"), model.tokenizer, "--text")
    found: Any
    show: Callable[[Any], None]
    if gradients:
        from charrnn import machine

        machine.prepare()
        from charrnn.gradients import of

        machine.use_threads(1)  # for small products
        found = of(model, read)
        show = screen.gradient_view
    elif read is None:
        from charrnn.inspection import describe

        found, show = describe(model), screen.inspect_view
    elif find:
        from charrnn import units

        part = units.shortened(read, model.config.hidden * model.config.layers)
        if len(part) < len(read):
            screen.warn(f"--find looks at the first {len(part):,} of {len(read):,} characters")
        reading = inner(model, part, backward)
        found, show = {"run": str(model.path), "units": units.find(reading)}, lambda found: screen.units_table(found["units"])
    else:
        reading = inner(model, read, backward)
        values = reading.unit(unit) if unit else reading.gate(gate) if gate else None
        kind = "unit" if unit else "gate" if gate else "surprise"
        name = f"unit {unit}" if unit else f"{gate} gate, mean" if gate else f"surprise, {'pseudo-' if reading.back else ''}nats"
        found = reading.as_json(values)
        show = lambda _: screen.coloured_text(reading, (reading.nats if values is None else values).tolist(), kind=kind, name=name)
    if json:
        screen.json_line(found)
    else:
        show(found)


def inner(run: Any, text: str, backward: bool = False) -> Any:
    """The run's reading of a text, seen from the layers that read backward or from the others."""
    from charrnn.trace import read

    reading = read(run, text)
    return reading.turned() if backward else reading


@command
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

    model = checkpoint.load(run)
    machine.prepare()
    from charrnn import gradients

    machine.use_threads(1)  # for small products
    told = None if text is None else known(_prompt(text, "--text"), model.tokenizer, "--text")
    reach = gradients.of(model, None)
    if plot:
        from charrnn.plots import figure

        write_whole(Path(plot), figure(inner(model, told or own_text(model)[0]), reach, Path(plot)))
        Writer(sys.stdout)(f"{plot}\n")
    if out or not plot:
        path = Path(out) if out else model.path / "report.html" if model.path.is_dir() else model.path.with_suffix(".html")
        write_whole(path, page(model, told, gradients=reach).encode())
        Writer(sys.stdout)(f"{path}\n")


@command
def fetch(name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False, help="Which text; none lists them.")] = None,
          *, to: Annotated[str, typer.Option(help="The folder to put it in.", metavar="FOLDER")] = "data",
          mirror: Annotated[str | None, typer.Option(help="A folder to look in first.", metavar="FOLDER",
                                                     show_default=False)] = None) -> None:
    """Fetch a known public-domain text, checked by its SHA-256."""
    from charrnn import fetch as fetching
    from charrnn import screen

    if name is None:
        screen.catalogue_table({"name": key, "title": entry.title, "author": entry.author, "bytes": entry.bytes, "licence": entry.licence}
                               for key, entry in fetching.catalogue().items())
        return
    with screen.download(name) as progress:
        path = fetching.fetch(name, Path(to), mirror=Path(mirror) if mirror else None, progress=progress)
    Writer(sys.stdout)(f"{path}\n")


def _quiet_pipe() -> None:
    """stdout is closed at the other end: nothing more is to be written, not even while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run the command; every failure becomes one line on stderr and an exit code."""
    from charrnn import screen

    code: int
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of weights that overflow: what follows from them is refused
    try:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed before the start
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for the life of the process)
            getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        screen.error_line(f"{error.format_message()}; see charrnn --help")
        code = 2
    except (LostError, ToldError) as error:
        if str(error):
            screen.error_line(str(error))
        os._exit(error.exit_code)  # torch would wait for who is not there
    except CharRNNError as error:
        screen.error_line(str(error))
        code = error.exit_code
    except BrokenPipe:
        _quiet_pipe()
        code = 0
    except Stopped as error:
        screen.error_line(str(error))
        code = 128 + error.number
    except OSError as error:
        screen.error_line(f"{error.filename or 'a file'}: {error.strerror or error}; check the disk")
        code = StorageError.exit_code
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):  # torch raises the latter
            screen.error_line("there is not enough memory for this: try a smaller --hidden, --batch, --window or --count")
            code = UsageError.exit_code
        else:
            screen.defect(error)
            code = CharRNNError.exit_code
    if code > 128:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # stopped by a signal: all is tidied up, and torch would take a while to leave
    sys.exit(code)
