"""Files from strangers: each is refused in one line, at once, in little memory, and nothing of it is run."""

import functools
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hostile import digested, hostile, joined, parts
from test_checkpoint import make_run

import charrnn
from charrnn import checkpoint
from charrnn.config import SamplingConfig
from charrnn.container import opened, sealed
from charrnn.errors import CheckpointError, UsageError
from charrnn.sampling import generate

STATUS = Path("/proc/self/status")


@functools.cache
def content():
    return checkpoint.model_tensors(make_run(Path("x")))


@functools.cache
def files():
    return hostile(*content())


def memory(what):
    return int(STATUS.read_text().split(what + ":")[1].split()[0]) / 1024 if STATUS.exists() else 0


def refused(path):
    """One line, within a second and 200 MB."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before, began = memory("VmRSS"), time.process_time()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    took, grown, said = time.process_time() - began, memory("VmHWM") - before, str(caught.value)
    assert took < 1 and grown < 150, (took, grown)  # an interpreter with NumPy is the rest
    assert said.startswith(str(path)) and "\n" not in said and len(said) < len(str(path)) + 400
    return said


@pytest.mark.parametrize("name", files())
def test_hostile_files_are_refused(name, tmp_path, capfd):
    path = tmp_path / "model.safetensors"
    data = files()[name]
    path.write_bytes(data() if callable(data) else data)
    del data
    refused(tmp_path if name < "m" else path)
    assert capfd.readouterr() == ("", "")


def test_there_are_many_of_them_and_the_file_they_are_made_of_is_good():
    tensors, about = content()
    assert len(files()) > 80
    read, found = opened(bytearray(sealed(tensors, about)))
    assert set(read) == set(tensors) and found["model"] == about["model"]
    again = joined(*parts(sealed(tensors, about)))
    assert again == sealed(tensors, about) == digested(again)


def test_what_is_no_file_is_refused(tmp_path):
    fifo, loop, chain, gone = (tmp_path / f"{name}.safetensors" for name in ("fifo", "loop", "chain", "gone"))
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    chain.symlink_to("/dev/zero")
    gone.symlink_to("nowhere")
    assert "not a regular file" in refused(fifo) and "not a regular file" in refused(chain)
    for path in (loop, gone):
        assert "no such run" in refused(path)
    for path in map(Path, ("/dev/zero", "/dev/urandom", "/dev/null", "/proc/self/mem", "/proc/self/environ")):
        refused(path)
    (tmp_path / "run" / "model.safetensors").mkdir(parents=True)
    assert "not a run" in refused(tmp_path / "run")
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(CheckpointError):
            checkpoint.load(name)


def test_a_file_of_many_gigabytes_that_are_not_there(tmp_path):
    path = tmp_path / "sparse.safetensors"
    for start in (b"", sealed(*content())):
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(1 << 41)
        refused(path)


def test_a_link_to_a_run_is_a_run(tmp_path):
    (tmp_path / "real.safetensors").write_bytes(sealed(*content()))
    (tmp_path / "link").symlink_to("real.safetensors")
    assert checkpoint.load(tmp_path / "link").config.cell == "gru"


def test_a_description_that_could_not_be_read_again_is_not_written():
    tensors, about = content()
    for words in (["ab"] * 500_000, ["x" * 20_000_000]):
        with pytest.raises(UsageError, match="vocabulary is too large"):
            sealed(tensors, {**about, "tokenizer": {"level": "word", "words": words}})


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("count", [1, 2])
def test_weights_that_overflow_say_so(count, tmp_path):
    tensors, about = content()
    (tmp_path / "model.safetensors").write_bytes(sealed({name: np.full_like(value, 3.4e38) if name.startswith("weights.output") else value
                                                         for name, value in tensors.items()}, about))
    run = checkpoint.load(tmp_path)
    with pytest.raises(CheckpointError, match="overflow"):
        list(generate(run, SamplingConfig(length=5, seed=1, count=count)))
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="overflow"):
        charrnn.evaluate(run, tmp_path / "x.txt")


def test_tensors_are_views_that_may_be_written_to():
    read, _ = opened(bytearray(sealed(*content())))
    for name, value in content()[0].items():
        assert read[name].dtype == value.dtype and np.array_equal(read[name], value) and read[name].flags.writeable
