"""The most memory that preparing a text and training on it take, by the text's size: `python -m benchmarks.memory`.

Each row is `charrnn train TEXT --steps 20` in a process of its own with an empty cache. The text is made of lines of real ones (those in
data/ and in the folder that CHARRNN_CORPORA names, else drawn words) in random order, with words that nobody has seen before strewn in, so
that the vocabulary grows with the text as that of real ones does. The size of it is needed on disk two to three times, in --folder.

    python -m benchmarks.memory                                     char at 1M, 100M and 1G, the other levels at 1M and 100M
    python -m benchmarks.memory --sizes 1M,1G,4G --levels char      some of them
    python -m benchmarks.memory --packed                            gzip's form of the text
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.about import describe
from benchmarks.report import markdown
from benchmarks.texts import drawn

UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
LEVELS = ("char", "byte", "word", "subword")
SYLLABLES = [first + middle + last for first in "bcdfghklmnprstvwz" for middle in "aeiou" for last in ("", "n", "r", "s", "l")]
NEW = 20  # lines for each new word
PAUSE = 0.05  # seconds between two looks at the processes


class Found(NamedTuple):
    """Bytes: the most that one process had at any time, and all of them at one; the number of processes, and processor and wall seconds."""

    one: int
    together: int
    processes: int
    busy: float
    seconds: float


def size_of(said: str) -> int:
    """The bytes of "100M"."""
    return int(said[:-1]) * UNITS[said[-1].upper()]


def lines() -> list[str]:
    """Lines of real texts, where there are any."""
    folders = [Path(folder) for folder in ("data", os.environ.get("CHARRNN_CORPORA")) if folder]
    paths = [path for folder in folders for path in sorted(folder.glob("*.txt")) if path.stat().st_size > 10_000]
    texts = [path.read_text(encoding="utf-8") for path in paths] or [drawn(2_000_000)]
    return [line for text in texts for line in text.splitlines(keepends=True)]


def blocks(size: int) -> Iterator[bytes]:
    """A text of about `size` bytes; always the same."""
    chance, known = random.Random(1), lines()
    while size > 0:
        chosen = chance.choices(known, k=20_000)
        for place in range(0, len(chosen), NEW):
            word = "".join(chance.choices(SYLLABLES, k=chance.randrange(1, 5)))
            chosen[place] = f"{word.capitalize() if chance.random() < 0.5 else word} {chosen[place]}"
        block = "".join(chosen).encode()
        size -= len(block)
        yield block


def made(path: Path, size: int, packed: bool) -> Path:
    """The text in a file."""
    path = path.with_name(f"{path.name}.gz") if packed else path
    with gzip.open(path, "wb", compresslevel=1) if packed else open(path, "wb") as file:
        for block in blocks(size):
            file.write(block)
    return path


def trained(text: Path, folder: Path, level: str, steps: int) -> Found:
    """What training on a text takes; SystemExit where it fails."""
    command = [sys.executable, "-m", "charrnn", "train", str(text), "--level", level, "--steps", str(steps), "--out", str(folder / "run"),
               "--json"]
    environment = {**os.environ, "CHARRNN_CACHE": str(folder / "cache")}
    began, together, most = time.monotonic(), 0, 1
    with open(folder / "said", "w+b") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            family = [process.pid, *children(process.pid)]
            together, most = max(together, sum(map(resident, family))), max(most, len(family))
            time.sleep(PAUSE)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"memory: {' '.join(command)}: {said.read().decode().strip()}")
    return Found(usage.ru_maxrss * 1024, together, most, usage.ru_utime + usage.ru_stime, time.monotonic() - began)


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def resident(pid: int) -> int:
    """The bytes of memory that a process has now; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="K, M or G of bytes, with commas between them")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--folder", default=None, help="where the text and the tokens go meanwhile")
    given = parser.parse_args(arguments)
    rows = [["level", "text", "largest process, MB", "all together, MB", "processes", "processor s", "s"]]
    for said in (given.sizes or "1M,100M,1G").split(","):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            text = made(Path(folder, "text.txt"), size_of(said), given.packed)
            for level in given.levels.split(","):
                if level != "char" and not given.sizes and said == "1G":
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as spare:
                    found = trained(text, Path(spare), level, given.steps)
                rows.append([level, said, f"{found.one / 1e6:.0f}", f"{found.together / 1e6:.0f}", str(found.processes),
                             f"{found.busy:.0f}", f"{found.seconds:.0f}"])
                print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    about = describe([])
    print(f"{about['machine']}; {about['versions']}; {about['date']}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
