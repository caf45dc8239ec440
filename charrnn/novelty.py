"""What a sample has copied from the training text, found in a suffix array of it that is built once and kept in the cache."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint import Run
from charrnn.compression import SUFFIXES
from charrnn.errors import CharRNNError, DataError
from charrnn.store import Shelf, Writer, cache_folder, opened
from charrnn.text import open_text
from charrnn.tokens import canonical, code_points

HEAD = 2000  # tokens of what was held out
COPIED = 20  # characters from which on a run counts as copied
DEPTH = 64  # characters that suffixes are sorted by
LONGEST = 20_000_000  # characters of a training text that are looked at
TRIED = 1000  # suffixes with the same first DEPTH characters that are compared further


def suffixes(codes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The places of a text sorted by the DEPTH characters from each on (prefix doubling: Manber and Myers 1990)."""
    values, ranks = np.unique(codes, return_inverse=True)
    key, bits, length = ranks.astype(np.int64) + 1, len(values).bit_length(), 1
    while 2 * length * bits < 64:
        key = key << (bits * length) | shifted(key, length)
        length *= 2
    while True:
        order = np.argsort(key)
        ranked = key[order]
        fresh = np.concatenate([[True], ranked[1:] != ranked[:-1]])
        if length >= DEPTH or fresh.all():
            return order.astype(np.int32)
        key[order] = np.cumsum(fresh)
        key = key << 32 | shifted(key, length)
        length *= 2


def shifted(key: NDArray[np.int64], by: int) -> NDArray[np.int64]:
    """Each place's key replaced by that of the place `by` further on; 0 beyond the end."""
    return np.concatenate([key[by:], np.zeros(min(by, len(key)), np.int64)])


class Copies:
    """A text and its suffixes in order: what of another text stands in it."""

    def __init__(self, text: str, order: NDArray[np.int32] | None = None) -> None:
        self.text = text
        self.order = suffixes(code_points(text)) if order is None else order

    def match(self, wanted: str) -> int:
        """The length of the longest beginning of `wanted` that stands in the text."""
        head, key = wanted[:DEPTH], lambda at: self.text[at : at + DEPTH]
        low = bisect_left(self.order, head, key=key)
        near = self.order[max(0, low - 1) : low + 1]
        if len(head) == DEPTH and self.text.startswith(head, int(near[-1])):
            near = self.order[low : min(bisect_right(self.order, head, lo=low, key=key), low + TRIED)]
        return max((common(wanted, self.text[at : at + len(wanted)]) for at in near.tolist()), default=0)

    def of(self, sample: str) -> dict[str, Any]:
        """`longest_copy`, the longest run of the sample that stands in the text, and `copied_share`: the share of its characters
        that belong to such a run of COPIED characters or more."""
        lengths = [self.match(sample[at:]) for at in range(len(sample))]
        longest = max(lengths, default=0)
        at = lengths.index(longest) if lengths else 0
        covered = np.zeros(len(sample), np.bool_)
        for start, length in enumerate(lengths):
            if length >= COPIED:
                covered[start : start + length] = True
        return {"longest_copy": sample[at : at + longest], "copied_share": float(covered.mean()) if lengths else 0.0}


def common(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if a.startswith(b) or b.startswith(a):
        return min(len(a), len(b))
    return next(at for at, (one, other) in enumerate(zip(a, b)) if one != other)


def copies(run: Run) -> Copies:
    """The part of its training text that a run learnt from, indexed. DataError where the text is not at hand."""
    key = {"text": run.text["digest"], "characters": min(run.text["training_characters"], LONGEST), "encoding": run.training.encoding,
           "errors": run.training.errors, "depth": DEPTH}
    folder = cache_folder()
    name = f"{run.text['name']}-copies-{hashlib.sha256(canonical(key)).hexdigest()[:24]}.tokens"
    path = folder / name if folder else None
    if path and (shelf := opened(path)) and shelf.about.get("key") == key:
        return restored(shelf)
    found = Copies(parts(run)[0][:LONGEST])
    try:
        with Writer(path) as file:
            text = found.text.encode()
            file.write(text)
            file.write(found.order.tobytes())
            file.finish({"key": key, "bytes": len(text), "order": len(found.order)})
    except OSError:
        pass  # a cache that cannot be written costs time, no more
    return found


def restored(shelf: Shelf) -> Copies:
    """The index that `copies` left on a shelf."""
    size = int(shelf.about["bytes"])
    return Copies(shelf.read(0, size).decode(), np.frombuffer(shelf.read(size, 4 * int(shelf.about["order"])), np.int32))


def parts(run: Run) -> tuple[str, str]:
    """What the run learnt from (its beginning, where it is longer than LONGEST), and the first HEAD tokens of what was held out: of its
    tokens in the cache, or of the text in `data` or in $CHARRNN_CORPORA, known by its SHA-256. DataError where neither is at hand."""
    digest, characters, name = run.text["digest"], run.text["training_characters"], run.text["name"]
    folder, level = cache_folder(), run.tokenizer.level
    for path in sorted(folder.glob(f"*-{level}-*.tokens")) if folder and folder.is_dir() else ():
        if path.name.startswith(f"{name}-{level}-") and (found := cached(path, run)) is not None:
            return found
    for path in places(name):
        try:
            file = open_text([path], encoding=run.training.encoding, errors=run.training.errors)
            if file.digest == digest:
                learnt = file.pieces(stop=min(characters, LONGEST))
                return "".join(learnt), "".join(file.pieces(start=characters, stop=characters + HEAD))
        except CharRNNError:
            continue
    raise DataError(f"the training text {name} is not at hand, neither in the cache nor as data/{name}.txt, so what is copied from it "
                    f"cannot be told; put it there (SHA-256 {digest[:12]}…)")


def cached(path: Path, run: Run) -> tuple[str, str] | None:
    """Both from a file of tokens; None where it is another text's, or another vocabulary's."""
    shelf = opened(path)
    try:
        if shelf is None or shelf.about["key"]["text"] != run.text["digest"] or shelf.about["tokenizer"] != run.tokenizer.to_bytes()[0]:
            return None
        dtype, count, held = np.dtype(shelf.about["dtype"]), run.text["training_tokens"], shelf.about["parts"][1]["tokens"]
        tokens = np.frombuffer(shelf.read(0, min(count, LONGEST) * dtype.itemsize), dtype)
        after = np.frombuffer(shelf.read(count * dtype.itemsize, min(HEAD, held) * dtype.itemsize), dtype)
        text = run.tokenizer.decode(tokens)
    except (CharRNNError, KeyError, TypeError, ValueError):
        return None
    whole = len(tokens) < count or len(text) == run.text["training_characters"]
    return (text, run.tokenizer.decode(after)) if whole else None


def places(name: str) -> Iterator[Path]:
    """Where a text of that name may lie."""
    for folder in filter(None, ("data", os.environ.get("CHARRNN_CORPORA"))):
        for suffix in ("", *SUFFIXES):
            if (path := Path(folder, f"{name}.txt{suffix}")).is_file():
                yield path
