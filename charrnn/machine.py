"""This process and the machine it runs on: threads, devices, and what must be set before torch is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from typing import TYPE_CHECKING

import charrnn
from charrnn.errors import UsageError

if TYPE_CHECKING:
    import torch

SPIN = "1000"  # turns that an idle OpenMP thread waits in a loop: few, as little here waits, and a busy process wants the core
# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h, in bytes
ALLOCATOR = {-1: 2**31 - 1, -2: 64 << 20, -3: 1 << 30}


def prepare() -> None:
    """Settings of the process, for the command to make before it loads torch; whoever set one of them keeps it."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # so that a GPU's products are the same bits each time
    if not any(name.startswith("MALLOC_") for name in os.environ):
        keep_memory()


def keep_memory() -> bool:
    """Tell glibc to keep large blocks that are freed: given back and asked for anew at each step, each page of them would be faulted
    in again. Says whether it was told; elsewhere than on glibc nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(option, value) == 1 for option, value in ALLOCATOR.items()])


def device(name: str) -> torch.device:
    """The device that an option names; auto is a CUDA GPU where there is one. UsageError when it is not there."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; where less will do that is bfloat16
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        if found.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"--device {name}: there is no such device here; use --device cpu") from None
    return found


def has_bfloat16(device: torch.device) -> bool:
    """Whether it is a GPU that multiplies in bfloat16."""
    import torch

    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def replays(device: torch.device) -> bool:
    """Whether its kernels can be recorded and replayed; CHARRNN_KERNELS=plain has them launched one by one."""
    return device.type == "cuda" and os.environ.get("CHARRNN_KERNELS") != "plain"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What the system calls the processor: torch's libraries choose their way of multiplying by it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def makings(threads: int, precision: str, device: torch.device | None = None) -> dict[str, str | int]:
    """What the bits of a training depend on, beside its settings: with other ones it differs from the last digits on. `precision` is
    what is multiplied here, which need not be what the run was planned with."""
    import torch

    name = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else processor()
    return {"charrnn": charrnn.__version__, "torch": str(torch.__version__), "processor": name,
            "instructions": torch.backends.cpu.get_cpu_capability(), "precision": precision, "threads": threads}
