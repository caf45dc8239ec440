"""The reference of all commands and options, made from the command line itself: python docs/options.py > docs/options.md"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer

from charrnn import config
from charrnn.cli import app

HEAD = """# Commands and options

Made by `make docs` from the command line itself; `charrnn COMMAND --help` says the same. `charrnn --version` prints the version,
`charrnn --install-completion` and `charrnn --show-completion` set up the shell's completion, `-h` and `--help` help at every place.
"""
BOUNDS = {(command, field.name): field.metadata
          for command, kind in {"train": config.TrainingConfig, "sample": config.SamplingConfig, "fill": config.FillingConfig,
                                "compare": config.CompareConfig, "evaluate": config.TrainingConfig}.items()
          for field in kind.__dataclass_fields__.values()}


def commands() -> dict[str, Any]:
    """The commands by name, as typer made them."""
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def options(command: Any) -> list[str]:
    """The options of a command, in order; not -h and --help, which all have."""
    return [name for parameter in command.params for name in parameter.opts if name.startswith("-")]


def allowed(command: str, name: str) -> str:
    """The range of a number."""
    bounds: Mapping[str, Any] = BOUNDS.get((command, name), {})
    low, high, above = (bounds.get(key) for key in ("low", "high", "above"))
    least = f"more than {above:g}" if above is not None else "" if low is None else f"{low:,}"
    if high is None or high >= 2**24:
        return f"{least} or more" if least else ""
    return f"{least} to {int(high) if high > 1 else high:,}"


def reference() -> str:
    """The whole page."""
    lines = [HEAD]
    for name, command in commands().items():
        arguments = " ".join(p.metavar for p in command.params if not p.opts[0].startswith("-"))
        lines += [f"## charrnn {name} {arguments}".rstrip(), "", command.help, "", "| option | value | range | what |", "|---|---|---|---|"]
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                text = parameter.help
                if isinstance(parameter.default, str) and "Default" not in text:
                    text += f" Default: {parameter.default}."
                lines.append(f"| `{parameter.opts[0]}` | {parameter.metavar or ''} | {allowed(name, parameter.name)} | {text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
