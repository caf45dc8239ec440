"""Many processes train the same model as one: to the bit where the batch is in as many parts, nearly so otherwise."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import VERSE
from ranks import Ranks

from benchmarks.processes import Cost
from charrnn import checkpoint
from charrnn.errors import UsageError
from charrnn.world import World, bounds, place

EXAMPLES = Path(__file__).parents[1] / "examples"
SHAPE = ["--hidden", "7", "--batch", "5", "--window", "9", "--steps", "24", "--dropout", "0.3", "--threads", "1", "--device", "cpu"]
DIVERGING = ["--cell", "rnn", "--activation", "relu", "--lr", "90", "--clip", "1e6", "--hidden", "12", "--batch", "3", "--window", "11",
             "--steps", "300", "--threads", "1"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    os.environ["CHARRNN_CACHE"] = str(folder / "cache")
    with Ranks(folder) as started:
        yield started


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "verse.txt"
    path.write_text(VERSE * 18, encoding="utf-8")
    return str(path)


def ending(run):
    """All that a run leaves, but for the seconds it took."""
    tensors, about = checkpoint.read(run / checkpoint.RESUME)
    del about["progress"]["seconds"], about["sha256"]
    files = [(run / name).read_bytes() for name in (checkpoint.MODEL, checkpoint.METRICS)]
    return {name: value.tobytes() for name, value in tensors.items()}, about, files


@pytest.mark.parametrize("form, steps, worlds", [({"cell": "lstm", "layers": 2}, 200, [(1, 1), (1, 4), (2, 2), (4, 4)]),
                                                 ({"cell": "lstm", "generations": 2}, 200, [(1, 1), (1, 4), (3, 2), (4, 4)]),
                                                 ({"cell": "gru", "bidirectional": True}, 40, [(1, 1), (1, 4), (3, 2), (4, 4)])],
                         ids=["lstm", "students", "gru"])
def test_the_same_batch_gives_the_same_model_whatever_the_shards_and_the_processes(form, steps, worlds, ranks, text, tmp_path):
    found = {}
    for size, shards in worlds:
        out = tmp_path / f"{size}-{shards}.npz"
        assert ranks.exact(size=size, shards=shards, steps=steps, text=text, out=str(out), form=form) == [0] * size
        found[size, shards] = dict(np.load(out))
    one = found[1, 1]
    assert one["nats"][-1] < 0.9 * one["nats"][0]
    for (size, shards), other in found.items():
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-9, err_msg=f"{name} of {size} processes, {shards} shards")
    for name, value in found[1, 4].items():
        np.testing.assert_array_equal(found[4, 4][name], value)


@pytest.mark.parametrize("size, shards", [(2, 2), (2, 5), (3, 2), (4, 3), (3, 3)])
def test_sums_are_those_of_the_plain_form(size, shards, ranks):
    assert ranks.exchanged(size=size, shards=shards) == [0] * size


def test_a_run_is_the_same_to_the_byte_and_goes_on_with_any_number_of_processes(ranks, text, tmp_path):
    given = [*SHAPE, "--shards", "4", "--out"]
    ended = {}
    for size in (1, 2, 3):
        run = tmp_path / str(size)
        codes, said = ranks.command(size=size, arguments=["train", text, *given, str(run)])
        assert codes == [0] * size and said[1:] == [""] * (size - 1), said
        ended[size] = ending(run)
    assert ended[1] == ended[2] == ended[3]
    run = tmp_path / "changing"
    for size, step, rank, number in [(2, 5, 1, "SIGTERM"), (4, 11, 0, "SIGINT"), (1, 17, 0, "SIGTERM"), (3, 99, 0, "SIGTERM")]:
        given = ["--resume", "--out", str(run)] if run.exists() else [*SHAPE, "--shards", "4", "--out", str(run)]
        codes, said = ranks.command(size=size, arguments=["train", text, *given], at=[rank, step, number])
        assert codes[rank] == {5: 143, 11: 130, 17: 143, 99: 0}[step] and not any(codes[:rank] + codes[rank + 1 :]), said
        assert said[1:] == [""] * (size - 1), said
        assert checkpoint.read(run / checkpoint.RESUME)[1]["progress"]["step"] == min(step + 1, 24)
    assert ending(run) == ended[1]


def test_a_process_that_rounds_differently_is_noticed_once_and_goes_on_with_the_weights_of_rank_0(ranks, text, tmp_path):
    """Said a second time it would not have taken them."""
    for rounding, times in (([1, 2], 1), ([1, 99], 0)):
        run = tmp_path / str(times)
        codes, said = ranks.command(size=2, arguments=["train", text, *SHAPE, "--out", str(run)], rounding=rounding)
        assert codes == [0, 0] and said[0].count("the processes' weights differed") == times and said[1] == "", said


def test_whoever_takes_long_with_the_text_is_waited_for_and_whoever_is_silent_is_not(ranks):
    assert ranks.patient(size=4, beside=2, slow=2, seconds=1.5, silent=False) == [0] * 4
    assert any(ranks.patient(size=2, beside=1, slow=1, seconds=1.5, silent=True))


def test_hello_with_more_processes_than_rows(ranks, tmp_path):
    text = tmp_path / "hello.txt"
    text.write_text("hello")
    codes, said = ranks.command(size=2, arguments=["train", str(text), "--steps", "5", "--out", str(tmp_path / "run")])
    assert codes == [0, 0] and "1 of 2 processes have no rows" in said[0] and said[1] == "", said


def test_a_time_is_planned_and_kept_by_all(ranks, text, tmp_path):
    codes, said = ranks.command(size=2, arguments=["train", text, "--hidden", "8", "--time", "2s", "--out", str(tmp_path / "run")])
    assert codes == [0, 0] and ("Finished" in said[0] or "Stopped early" in said[0]), said


def test_another_text_stops_all_with_one_line(ranks, text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(VERSE * 17 + "other", encoding="utf-8")
    shutil.copy(text, tmp_path / "same.txt")
    for third, wrong in ((other, True), (tmp_path / "same.txt", False)):
        codes, said = ranks.command(size=3, arguments=["train", "TEXT", *SHAPE, "--out", str(tmp_path / f"run{wrong}")],
                                    texts=[text, text, str(third)])
        assert codes == [2 * wrong] * 3, said
        if wrong:
            assert "".join(said).count("\n") == 1 and "rank 2" in "".join(said) and "the text is not that of rank 0" in "".join(said)
            assert "".join(said).count("rank 2") == 1


@pytest.mark.parametrize("arguments, code", [(["TEXT", "--resume"], 2), (["nowhere.txt", "--steps", "1"], 2), (["-", "--steps", "1"], 2),
                                             (["TEXT", *DIVERGING], 3)])
def test_what_is_wrong_is_said_once(arguments, code, ranks, text, tmp_path):
    arguments = ["train", *arguments, "--out", str(tmp_path / "run")]
    codes, said = ranks.command(size=3, arguments=[text if word == "TEXT" else word for word in arguments])
    assert codes == [code] * 3 and len(re.findall("^charrnn: (?!note)", "".join(said), re.MULTILINE)) == 1, said


@pytest.mark.parametrize("name, shell", [("torchrun.sh", "sh"), ("slurm.sh", "bash")])
def test_the_scripts_start_torchrun_with_options_that_exist(name, shell, tmp_path):
    script = (EXAMPLES / name).read_text(encoding="utf-8")
    assert subprocess.run([shell, "-n", EXAMPLES / name]).returncode == 0
    for word, does in (("torchrun", 'echo "$@" > args'), ("srun", '"$@"'), ("scontrol", "echo first; echo second")):
        (tmp_path / word).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / word).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "x", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    given = ["book.txt", "run", "--hidden", "8"] if "sbatch" in script else ["book.txt", "--out", "run", "--hidden", "8"]
    subprocess.run([shell, EXAMPLES / name, *given], cwd=tmp_path, env=environment, check=True)
    before, after = (tmp_path / "args").read_text().split(" -m charrnn ")
    assert after.split() == ["train", "book.txt", "--out", "run", "--hidden", "8"]
    known_to_torchrun(before.split())


def known_to_torchrun(words):
    from torch.distributed.run import get_args_parser

    assert get_args_parser().parse_args([*words, "script"]).max_restarts == 3


def test_the_job_of_kubernetes_is_written_as_yaml_and_starts_torchrun():
    lines = (EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8").splitlines()
    text = [line for line in lines if not line.startswith("#")]
    begin = text.index("            - >-") + 1
    script = [line for line in text[begin:] if line.startswith(" " * 14)][:4]
    words = shlex.split(" ".join(script).replace("$JOB_COMPLETION_INDEX", "1"))
    known_to_torchrun(words[words.index("torchrun") + 1 : words.index("-m")])
    for line in text[: begin - 1] + text[begin + 4 :]:
        assert re.fullmatch(r"(  )*(- )?[A-Za-z-]+:( [^ ].*)?|---", line), line
    said = "\n".join(text)
    assert said.count("kind: ") == 2 and "completionMode: Indexed" in said and "subdomain: charrnn" in said


def test_what_the_cost_is_made_of_is_measured(tmp_path):
    """By the program itself, as it is started in each process; here in one."""
    shape = ["--hidden", "8", "--batch", "4", "--window", "8"]
    command = [sys.executable, "-m", "benchmarks.processes", *shape, "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=EXAMPLES.parent, timeout=60, check=True)
    found = json.loads((tmp_path / "out").read_text())
    assert 0 <= found["exchange"] < found["update"] < found["step"] and found["characters"] == pytest.approx(4 * 8 / found["step"])


def test_the_cost_on_paper_adds_up():
    cost = Cost(fixed=0.02, compute=0.3, update=0.05, parameters=10**6, bandwidth=1e9, latency=1e-4)
    assert cost.exchange(1) == 0 and cost.step(1) == cost.step(1, growing=True) == pytest.approx(0.37)
    assert cost.exchange(2) == pytest.approx(8 * 10**6 / 2 / 1e9 + 2e-4)
    assert cost.step(4) == pytest.approx(0.02 + 0.3 / 4 + 0.05 + cost.exchange(4)) and cost.step(4, growing=True) > 0.37


def test_stretches_are_alike_and_whole():
    for total, parts in itertools.product((0, 1, 5, 12), (1, 2, 5, 7)):
        found = bounds(total, parts)
        sizes = [end - begin for begin, end in itertools.pairwise(found)]
        assert found[0] == 0 and found[-1] == total and len(sizes) == parts and max(sizes) - min(sizes) <= 1


def test_the_place_is_torchruns():
    assert place({}) == place({"WORLD_SIZE": "1", "RANK": "0"}) == {}
    told = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert place(told) == {"rank": 3, "size": 4, "local": 1, "beside": 2}
    with pytest.raises(UsageError, match="MASTER_PORT"):
        place({name: value for name, value in told.items() if name != "MASTER_PORT"})
    assert World(beside=10**6).cores() == 1
