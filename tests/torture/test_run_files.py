"""Run files that were damaged, or changed by a stranger who can make a digest: refused in one line, or a valid run after all."""

import random
import subprocess
import sys

import numpy as np
import pytest
from conftest import cases, found
from hostile import digested, mutated
from test_checkpoint import make_run

from charrnn import checkpoint
from charrnn.config import SamplingConfig
from charrnn.container import opened, sealed
from charrnn.errors import CheckpointError
from charrnn.sampling import generate


@pytest.fixture
def good(tmp_path):
    return sealed(*checkpoint.model_tensors(make_run(tmp_path)))


def mutants(good, count, seed):
    """(bytes, whether their digest was made anew): of each second one it was."""
    tensors, about = opened(bytearray(good))
    del about["sha256"], about["format"]
    other = sealed({**tensors, "weights.output.b": tensors["weights.output.b"] + 1}, {**about, "metrics": {**about["metrics"], "step": 4}})
    chance = random.Random(seed)
    for number in range(count):
        while (data := mutated(good, chance, other)) in (good, other):
            pass
        yield (digested(data), True) if number % 2 else (data, False)


def test_mutated_run_files(good, tmp_path):
    """With the old digest all are refused. With a new one what is not refused can be used, as a run with another value somewhere."""
    count, refused, valid = cases(1_000, 20_000), 0, 0
    path = tmp_path / "mutated.safetensors"
    for data, sealed_anew in mutants(good, count, 5):
        path.write_bytes(data)
        try:
            run = checkpoint.load(path)
        except CheckpointError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error) and "\x1b" not in repr(str(error))
            refused += 1
            continue
        assert sealed_anew
        valid += 1
        assert all(np.isfinite(value).all() for value in run.weights.values())
        with np.errstate(all="ignore"):
            try:
                text = "".join(piece.text for piece in generate(run, SamplingConfig(length=5, seed=1)))
            except CheckpointError as error:
                assert "overflow" in str(error)
                continue
        assert run.tokenizer.decode(run.tokenizer.encode(text)) == text
    found(5, f"{count:,} mutated run files through the library, half with a new digest: {refused:,} refused; {valid:,} with a new digest "
          "are valid runs with another value in a weight, a count or a figure")
    assert refused >= count / 2 and refused + valid == count


def test_mutated_run_files_through_the_command(good, tmp_path):
    count, refused = cases(6, 600), 0
    for number, (data, sealed_anew) in enumerate(mutants(good, count, 6)):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        arguments = [["sample", path, "--length", "5", "--seed", "1"], ["inspect", path, "--json"], ["inspect", path]][number % 3]
        done = subprocess.run([sys.executable, "-m", "charrnn", *arguments], capture_output=True, timeout=60)
        assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") <= 1, done.stderr
        assert done.returncode == 2 or (sealed_anew and done.returncode == 0), (done.returncode, done.stderr)
        if done.returncode:
            assert done.stdout == b"" and done.stderr.startswith(b"charrnn: " + str(path).encode())
            refused += 1
    found(5, f"{count} mutated run files through the command, half with a new digest: {refused} refused with exit code 2 and one line; "
          f"{count - refused} are valid runs")
    assert refused >= count / 2
