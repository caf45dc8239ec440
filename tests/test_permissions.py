"""What this user may not read or write: one line with the path and the cause, and the right exit code."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import random_run

from charrnn import checkpoint

TEXT = "what may be read and what may not\n" * 40
STEPS = ("--steps", "1", "--hidden", "3", "--threads", "1")
ROOT = os.geteuid() == 0


def bounded():
    """Root reads and writes whatever it likes. A program that it starts after this may not: it is its files' owner, and no more."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def python(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "CHARRNN_CORPORA": ""}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, env=environment,
                          preexec_fn=bounded if ROOT else None)


@pytest.fixture
def place(tmp_path):
    """A text, one that is locked, folders, and a run; what was locked is unlocked in the end, so that it can be removed."""
    (tmp_path / "text.txt").write_text(TEXT)
    for name in ("closed", "inside/deep", "sealed/run", "good"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("locked.txt", "inside/deep/a.txt", "sealed/time_machine.txt"):
        (tmp_path / name).write_text(TEXT)
    for name in ("good", "sealed/run"):
        checkpoint.write(tmp_path / name / checkpoint.MODEL, *checkpoint.model_tensors(random_run(TEXT, hidden=3)))
        checkpoint.write(tmp_path / name / checkpoint.RESUME, {}, {"kind": "resume"})
    locked = {tmp_path / name: mode for name, mode in {
        "locked.txt": 0, "inside/deep": 0, "closed": 0o555, "sealed": 0, f"good/{checkpoint.RESUME}": 0}.items()}
    for path, mode in locked.items():
        path.chmod(mode)
    if python("-c", "import os; os.listdir('sealed')", cwd=tmp_path).returncode == 0:
        pytest.skip("this user may read everything, and cannot be kept from it")
    yield tmp_path
    for path in locked:
        path.chmod(0o755)


@pytest.mark.parametrize("arguments, code, says", [
    (("train", "locked.txt", *STEPS), 2, "locked.txt: cannot be read: Permission denied"),
    (("train", "inside", *STEPS), 2, "inside: cannot be read: Permission denied"),
    (("train", "sealed", *STEPS), 2, "sealed: cannot be read: Permission denied"),
    (("train", "text.txt", "--out", "closed", *STEPS), 5, "closed: cannot write: Permission denied; choose another place"),
    (("train", "text.txt", "--out", "closed/run", *STEPS), 5, "closed/run: cannot write: Permission denied; choose another place"),
    (("train", "text.txt", "--out", "sealed/run", *STEPS), 5, "sealed/run: cannot write: Permission denied; choose another place"),
    (("train", "text.txt", "--init-from", "sealed/run", *STEPS), 2, "sealed/run: cannot be read: Permission denied"),
    (("train", "text.txt", "--out", "good", "--resume"), 2, "good/resume.safetensors: cannot be read: Permission denied"),
    (("sample", "sealed/run"), 2, "sealed/run: cannot be read: Permission denied"),
    (("inspect", "sealed/run/model.safetensors"), 2, "sealed/run/model.safetensors: cannot be read: Permission denied"),
    (("evaluate", "good", "locked.txt"), 2, "locked.txt: cannot be read: Permission denied"),
    (("fetch", "python-docs", "--to", "closed"), 5, "closed/python_docs.txt: cannot be written: Permission denied"),
    (("fetch", "truyen-kieu", "--mirror", "sealed", "--to", "data"), 2, "sealed/truyen_kieu.txt cannot be read: Permission denied"),
])
def test_what_is_not_allowed_is_said_in_one_line(arguments, code, says, place):
    done = python("-m", "charrnn", *arguments, cwd=place)
    assert done.returncode == code and done.stdout == "" and done.stderr.count("\n") == 1, done
    assert says in done.stderr
    assert not (place / "checkpoints").exists()


@pytest.mark.parametrize("lock", [lambda cache: cache.chmod(0o555), lambda cache: cache.chmod(0),
                                  lambda cache: [path.chmod(0) for path in cache.iterdir()]], ids=["not written", "closed", "not read"])
def test_a_cache_that_is_not_ours_is_done_without(lock, place, monkeypatch):
    code = ("from charrnn.corpus import prepare; from charrnn.text import open_text; "
            "print(prepare(open_text(['text.txt']), level='char').training.store.read(0, 99).tolist())")
    cache = place / "cache"
    monkeypatch.setenv("CHARRNN_CACHE", str(cache))
    first = python("-c", code, cwd=place)
    lock(cache)
    again = python("-c", code, cwd=place)
    cache.chmod(0o755)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "") and first.stdout
