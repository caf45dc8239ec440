"""The machine, the versions and the load, as far as they can be told."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def processor() -> str:
    """The model's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def load() -> str:
    """Of the last 1, 5 and 15 minutes."""
    try:
        return ", ".join(f"{value:.2f}" for value in os.getloadavg())
    except (OSError, AttributeError):
        return "unknown"


def others(seconds: float = 0.5) -> float:
    """How many cores are busy while this process only waits; 0 where the system does not say."""
    def used() -> float:
        try:
            ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except OSError:
            return 0.0
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for the disk

    began, before = time.monotonic(), used()
    time.sleep(seconds)
    return (used() - before) / (time.monotonic() - began)


def compiler() -> str:
    """The first line of what it says of itself."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)
    if found is None:
        return "none"
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.splitlines()
    return said[0] if said else Path(found).name


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def backend() -> str:
    """Which kernel trains: asked in a process of its own, as it loads torch."""
    code = "from charrnn import kernels; print(kernels.backend())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def describe(arguments: list[str]) -> dict[str, Any]:
    """What stands above the table; `load` is the one before anything was measured."""
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    import charrnn

    return {
        "machine": f"{processor()}, {cores()} cores, {memory()}, {platform.system()} {platform.release()}",
        "versions": f"python {platform.python_version()}, {names}, charrnn {charrnn.__version__}",
        "compiler": compiler(), "kernels": backend(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m benchmarks.bench", *arguments]), "load": load(),
    }
