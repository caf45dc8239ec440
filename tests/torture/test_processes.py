"""torchrun for real: processes that are killed or stopped, two hosts (network namespaces), a link that is cut."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import VERSE, cases, found

from charrnn import checkpoint
from charrnn.config import TrainingConfig
from charrnn.corpus import prepare
from charrnn.errors import CheckpointError
from charrnn.text import open_text
from charrnn.training import train

SHAPE = {"hidden": 6, "batch": 3, "window": 9, "steps": 24, "dropout": 0.3, "threads": 1, "device": "cpu", "shards": 2}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ALL = cases(0, 1)
SAVING = str(Path(__file__).with_name("saving.py"))


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARRNN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "verse.txt"
    path.write_text(VERSE * 18, encoding="utf-8")
    return path


@pytest.fixture
def whole(text, tmp_path):
    """The end of a run by one process."""
    config = TrainingConfig(**SHAPE)
    list(train(prepare(open_text([text]), level="char"), config, tmp_path / "whole"))
    return ending(tmp_path / "whole")


def ending(run):
    tensors, about = checkpoint.read(run / checkpoint.RESUME)
    del about["progress"]["seconds"], about["sha256"]
    return {name: value.tobytes() for name, value in tensors.items()}, about, (run / checkpoint.MODEL).read_bytes()


def arguments(text, run, *more):
    given = [word for name, value in SHAPE.items() for word in (f"--{name}", str(value))]
    resumed = (run / checkpoint.RESUME).exists()
    return [SAVING, "train", str(text), "--out", str(run), *(["--resume"] if resumed else given), "--json", *more]


def start(command, log, **environment):
    """A process, its talk in the file `log`."""
    with open(log, "w") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | environment)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def step(run):
    """The step of the state on disk; -1 where there is none."""
    try:
        return checkpoint.newest_state(run)[1]["progress"]["step"]
    except CheckpointError:
        return -1


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.02)


@contextlib.contextmanager
def ended(*processes):
    """Whatever happens, none of these is left."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                for pid in children(process):
                    os.kill(pid, signal.SIGKILL)
                process.kill()
                process.wait()


def killed(text, run, log, rank, place, later):
    """A run whose process `rank` is killed so many seconds after step `place` was saved; how it ended."""
    restarting = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
    process = start([*restarting, *arguments(text, run, "--timeout", "30s")], log, DRAG="0.05")
    with ended(process):
        until(lambda: len(children(process)) == 2)
        until(lambda: step(run) >= place)
        time.sleep(later)
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(children(process)[rank], signal.SIGKILL)
        assert process.wait(300) == 0, log.read_text()
    return ending(run)


def test_killed_processes_come_back_to_the_same_bytes(text, whole, tmp_path):
    chance, made, clean = random.Random(4), cases(1, 10), 0
    for number in range(made):
        place = chance.randint(-1, 20)
        later = chance.uniform(0, 0.5 if place >= 0 else 4)
        clean += killed(text, tmp_path / str(number), tmp_path / "log", number % 2, place, later) == whole
    found(15, f"{made} runs of 2 processes, one of them killed: {clean} ended in the same bytes")
    assert clean == made


def test_a_process_that_hangs_is_named(text, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([*TORCHRUN, "--standalone", "--nproc-per-node", "2", *arguments(text, run, "--timeout", "3s")], log, DRAG="0.2")
    with ended(process):
        until(lambda: step(run) >= 2)
        _, second = children(process)
        os.kill(second, signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: "charrnn: " in log.read_text(), 30)
        took = time.monotonic() - began
        os.kill(second, signal.SIGKILL)
        process.wait(60)
    lines = [line for line in log.read_text().splitlines() if line.startswith("charrnn: ")]
    assert len(lines) == 1 and f"rank 1 (process {second} on " in lines[0] and "did not answer within 0:03" in lines[0], lines
    found(15, f"a process that hangs is named after {took:.1f} s, with --timeout 3s")
    assert took < 20


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True)


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: their names, addresses and cards."""
    names = [f"charrnn{os.getpid()}{end}" for end in "ab"]
    cards = [f"cv{os.getpid() % 10**6}{end}" for end in "ab"]
    try:
        try:
            for name in names:
                run("ip", "netns", "add", name)
            run("ip", "link", "add", cards[0], "netns", names[0], "type", "veth", "peer", "name", cards[1], "netns", names[1])
            for number, (name, card) in enumerate(zip(names, cards), 1):
                run("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", card)
                run("ip", "-n", name, "link", "set", card, "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not to be had here: {getattr(error, 'stderr', error)}")
        yield [(name, f"10.77.0.{number}", card) for number, (name, card) in enumerate(zip(names, cards), 1)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.skipif(not ALL, reason="takes more than a minute: make torture")
def test_a_process_of_another_host_that_is_killed_comes_back(hosts, text, whole, tmp_path):
    """By torchrun's elastic rendezvous, where each host has its own count of restarts."""
    folder, port = tmp_path / "run", 28400 + os.getpid() % 1000
    endpoint = f"{hosts[0][1]}:{port}"
    elastic = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-id", "7", "--rdzv-backend", "c10d"]
    one, other = (start(["ip", "netns", "exec", name, *TORCHRUN, *elastic, "--rdzv-endpoint", endpoint, "--local-addr", address,
                         "--rdzv-conf", f"is_host={1 - number}", *arguments(text, folder, "--timeout", "20s")],
                        tmp_path / f"log{number}", DRAG="0.2", GLOO_SOCKET_IFNAME=card)
                  for number, (name, address, card) in enumerate(hosts))
    with ended(one, other):
        until(lambda: step(folder) >= 3)
        os.kill(children(other)[0], signal.SIGKILL)
        assert [one.wait(200), other.wait(200)] == [0, 0]
    assert ending(folder) == whole
    found(15, "two hosts: a process killed, all started again by torchrun, the same bytes")


def test_two_hosts_end_as_one_process_does_and_go_on_after_the_link_was_cut(hosts, text, whole, tmp_path):
    run_folder, port = tmp_path / "run", 29400 + os.getpid() % 1000

    def launched(turn):
        given = arguments(text, run_folder, "--timeout", f"{4 + 26 * turn}s")
        return [start(["ip", "netns", "exec", name, *TORCHRUN, "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1",
                       "--master-addr", hosts[0][1], "--master-port", str(port + turn), *given],
                      tmp_path / f"log{turn}{number}", DRAG="0.2" if turn == 0 else "0", GLOO_SOCKET_IFNAME=card)
                for number, (name, _, card) in enumerate(hosts)]

    one, other = launched(0)
    with ended(one, other):
        until(lambda: step(run_folder) >= 3)
        run("ip", "-n", hosts[0][0], "link", "set", hosts[0][2], "down")
        logs = [tmp_path / f"log0{number}" for number in (0, 1)]
        until(lambda: all("charrnn: rank" in log.read_text() for log in logs), 60)
    reached = step(run_folder)
    assert 3 <= reached < 24
    assert "rank 1 (process " in logs[0].read_text() and "rank 1 on " in logs[1].read_text()
    run("ip", "-n", hosts[0][0], "link", "set", hosts[0][2], "up")
    one, other = launched(1)
    with ended(one, other):
        codes = [one.wait(120), other.wait(120)]
    assert codes == [0, 0], [(tmp_path / f"log1{number}").read_text() for number in (0, 1)]
    said = (tmp_path / "log10").read_text().splitlines()
    assert [json.loads(line)["step"] for line in said if line.startswith('{"event": "start"')] == [reached]
    assert ending(run_folder) == whole
    found(15, f"two hosts: the link cut after step {reached}, said on both sides, resumed to the bytes of one process")
