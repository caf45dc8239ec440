"""What the command tells its process before torch is loaded."""

import os
import subprocess
import sys

import pytest

from charrnn import machine
from charrnn.errors import UsageError

FAULTS = """
import os, resource, sys
if sys.argv[1] == "kept":
    from charrnn import machine
    assert machine.keep_memory()
import torch
def blocks():
    for _ in range(40):
        torch.ones(12 << 20)  # 48 MB, touched and freed at once
blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_blocks_are_kept_so_that_they_fault_in_once():
    """Also shows that it can fail: without it each block costs its 12,288 pages again (fewer where pages are huge)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = {how: int(subprocess.run([sys.executable, "-c", FAULTS, how], env=environment, capture_output=True, text=True,
                                      check=True).stdout) for how in ("kept", "default")}
    assert faults["kept"] < 200 and faults["default"] > 2 * faults["kept"]


def test_the_makings_tell_apart_what_multiplies_otherwise():
    here = machine.makings(1, "float32")
    assert here != machine.makings(1, "bfloat16") and here != machine.makings(2, "float32") and here == machine.makings(1, "float32")
    assert all(isinstance(value, str | int) and value for value in here.values())


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    monkeypatch.setattr(machine, "keep_memory", lambda: pytest.fail("the user's allocator settings were overridden"))
    machine.prepare()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_without_glibc_nothing_happens(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(machine.ctypes, "CDLL", missing)
    assert machine.keep_memory() is False


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="cuda:99"):
        machine.device("cuda:99")
    with pytest.raises(UsageError, match="nonsense"):
        machine.device("nonsense")
    assert machine.device("cpu").type == "cpu"
