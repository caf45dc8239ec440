"""Text that is safe to show on a terminal, and figures that people can read. Pure functions."""

from __future__ import annotations

import math
import re

NOTHING = "-"

# What a terminal would obey or a reader could not see: C0, DEL and C1; marks, embeddings, overrides and isolates of
# direction; line and paragraph separators; old format controls; annotation marks; lone surrogates; noncharacters.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def visible(text: str, keep: str = "\n\t") -> str:
    """The text with each control character shown instead of obeyed: ␛ for ESC, ‹U+202E› for an override of direction.

    Characters of `keep` stay as they are. Works character by character: pieces joined are the whole.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _picture(ord(match[0])), text)


def escaped(line: str) -> str:
    r"""JSON text with the same characters as \uXXXX; they occur inside its strings only, where that is allowed."""
    return _UNSAFE.sub(lambda match: _json_escape(ord(match[0])), line)


def on_one_line(text: str) -> str:
    """The text made visible, its line ends turned into spaces."""
    return visible(" ".join(text.split("\n")).strip(), keep="")


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def _json_escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def duration(seconds: float) -> str:
    """2:05, or 1:02:03 from an hour on."""
    if not math.isfinite(seconds):
        return NOTHING
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: float) -> str:
    """Three digits that matter: 999, 12.3 K, 1.23 M."""
    return _scaled(number, 1000, ("", "K", "M", "G", "T"))


def size(length: float) -> str:
    """A length in bytes: 512 B, 1.50 KiB, 12.3 MiB."""
    return _scaled(length, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def figure(value: float | None, digits: int = 3) -> str:
    """A loss or a ratio, with `digits` digits after the point, fewer where the number is large."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.{max(0, digits - max(0, len(str(int(abs(value)))) - 2))}f}"


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    if not math.isfinite(number):
        return NOTHING
    unit = 0
    while abs(number) >= 999.5 and unit + 1 < len(units):  # 999.5 would be written 1000
        number /= base
        unit += 1
    if unit == 0 or abs(number) >= 99.95:
        written = f"{number:.0f}"
    elif abs(number) >= 9.995:
        written = f"{number:.1f}"
    else:
        written = f"{number:.2f}"
    return f"{written} {units[unit]}".rstrip()
