"""The dashboard as a picture, from the events that `charrnn train --json` printed.

    charrnn train data/time_machine.txt --time 1m --json > events.jsonl
    python docs/picture.py events.jsonl docs/dashboard.svg
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charrnn import screen
from charrnn.events import Event

KINDS: dict[str, type[Event]] = {kind.event: kind for kind in Event.__subclasses__()}


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events that JSON lines tell of: null is a figure that is not a number, a list a tuple."""
    for line in lines:
        told = {name.replace("pseudo_", ""): value for name, value in json.loads(line).items()}
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else math.nan if value is None else value
                                  for name, value in told.items()}
        yield KINDS[fields.pop("event")](**fields)


def main(log: str, picture: str) -> None:
    """Draw the events of the file `log` into the file `picture`."""
    screen.dashboard_svg(events(Path(log).read_text(encoding="utf-8").splitlines()), picture)
    drawn = Path(picture).read_text(encoding="utf-8")
    local = re.sub(r"\s*@font-face \{[^}]*\}", "", drawn)  # rich names fonts on the web; any fixed-width one will do
    spaced = local.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some viewers drop the spaces at a line's beginning
    Path(picture).write_text(spaced, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/picture.py EVENTS.jsonl PICTURE.svg")
    main(*sys.argv[1:])
