"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout instead of talk.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="A run's folder, or its .safetensors file.")]
TEXTS = typer.Argument(metavar="TEXT", show_default=False,
                       help="Files, folders (every .txt below them), or - for stdin; gzip and zstd too.")
Texts = Annotated[list[str], TEXTS]
