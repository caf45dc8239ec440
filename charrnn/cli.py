"""The command line: its table of commands, and how they end. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any, NoReturn

import typer

import charrnn
from charrnn import screen
from charrnn.commands.learning import fetch, train
from charrnn.commands.looking import inspect, report
from charrnn.commands.measuring import compare, evaluate
from charrnn.commands.writing import fill, sample
from charrnn.errors import CharRNNError, LostError, StorageError, ToldError, UsageError
from charrnn.interrupt import Stopped

app = typer.Typer(name="charrnn", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  context_settings={"help_option_names": ["-h", "--help"]})


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


def ending(function: Callable[..., None]) -> Callable[..., None]:
    """The function as a command whose end by a pipe or by Ctrl-C reaches `main`."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except BrokenPipeError:
            raise BrokenPipe from None
        except KeyboardInterrupt:  # likewise Typer's own
            raise Stopped(signal.SIGINT, "stopped") from None
        except ImportError as error:  # what a module in C makes of all that is raised while it is loaded
            if isinstance(error.__cause__, Stopped):
                raise error.__cause__ from None
            raise

    called.__signature__ = signature(function, eval_str=True)  # type: ignore[attr-defined]
    return called


for function in (train, sample, fill, compare, evaluate, inspect, report, fetch):
    app.command()(ending(function))


def _quiet_pipe() -> None:
    """stdout is closed at the other end: nothing more is to be written, not even while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run the command; every failure becomes one line on stderr and an exit code."""
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
