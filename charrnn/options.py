"""The fields of a configuration as the options of a command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from charrnn.config import Config, option_name


def from_fields(config: type[Config], receiver: str = "given") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command so that each field of `config` is an option of it. Those that were set arrive together, as the dictionary
    `receiver`; the others keep the configuration's default."""
    hints = typing.get_type_hints(config)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != receiver]
        made = [_parameter(field, hints[field.name]) for field in dataclasses.fields(config)]
        names = [parameter.name for parameter in made]

        @functools.wraps(command)
        def called(**values: Any) -> None:
            taken = {name: values.pop(name) for name in names}
            given = {name: tuple(value) if isinstance(value, list) else value for name, value in taken.items()
                     if value not in (None, []) and value is not False}
            command(**values, **{receiver: given})

        places = {p.name: p for p in own}
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*places.values(), *made)])
        called.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        return called

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    kind: Any = next(k for k in typing.get_args(hint) if k is not type(None)) if isinstance(hint, types.UnionType) else hint
    if typing.get_origin(kind) is tuple:
        kind = list[str]
    about, default = field.metadata, field.default
    text = about["help"]
    if about["choices"]:
        text += f" One of {', '.join(about['choices'])}."
    if default not in (None, (), "") and kind is not bool:
        text += f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
    flags = (option_name(field.name),) if kind is bool else ()
    option = typer.Option(*flags, help=text, show_default=False, rich_help_panel=about["group"], metavar=_metavar(field.name, kind))
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _metavar(name: str, kind: Any) -> str | None:
    special = {"time": "TIME", "prompt": "TEXT", "stop": "TEXT", "device": "DEVICE", "encoding": "NAME"}
    return special.get(name) or {int: "N", float: "X", str: "NAME", bool: None}.get(kind, "TEXT")
