"""Runs that are killed, starved and raced, in many processes: see trials.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import cases, found

TRIALS = Path(__file__).with_name("trials.py")
ALL = cases(0, 1)


def trial(name, count, folder):
    """What a trial found: its last line. The lines before it say how far it is."""
    with open(folder / "told", "w+", encoding="utf-8") as told:
        with subprocess.Popen([sys.executable, str(TRIALS), name, str(count), str(folder)], stdout=subprocess.PIPE, stderr=told,
                              text=True) as process:
            for line in process.stdout:
                if not line.startswith("{"):
                    print(line, end="", flush=True)
        told.seek(0)
        assert process.returncode == 0, told.read()[-3000:]
    return json.loads(line)


def test_kills_at_random_moments(tmp_path):
    made = trial("kills", cases(60, 1_000), tmp_path)
    found(1, f"{made['kills']:,} kills in {made['runs']} runs of {made['forms']} forms: {made['mismatches']} mismatches")
    assert made["mismatches"] == 0 and made["kills"] >= cases(60, 1_000) and made["forms"] == 32


def test_a_part_of_the_state_that_is_left_out_is_noticed(tmp_path):
    made = trial("left_out", 1, tmp_path)
    found(2, f"a part of the state left out: {made['noticed']} of {made['parts']} noticed")
    assert made["noticed"] == made["parts"] == 5, made["each"]


def test_every_call_of_a_save(tmp_path):
    made = trial("failing_calls", cases(10, 520), tmp_path)
    found(3, f"{made['tried']} failures at {made['calls']} system calls of a session that saves: each ended in the same bytes")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount file systems")
def test_full_disks(tmp_path):
    try:
        made = trial("full_disks", cases(5, 50), tmp_path)
    except AssertionError as error:
        if "mount" not in str(error):
            raise
        pytest.skip("mounting is not allowed here")
    found(4, f"{made['sizes']} file system sizes, {made['refused']} too small: one line each, the last state goes on to the same bytes")
    assert made["refused"] and made["finished"]


def test_signals_at_random_moments(tmp_path):
    made = trial("signals", cases(5, 100), tmp_path)
    answer, gone = made["slowest answer"], made["slowest exit"]
    found(8, f"{made['SIGINT']} Ctrl-C, {made['SIGTERM']} SIGTERM: answered within {answer:.3f} s, gone within {gone:.2f} s, "
             "resumed exactly")
    assert not ALL or (answer < 0.2 and gone < 2)


def test_races(tmp_path):
    made = trial("races", cases(5, 100), tmp_path)
    found(9, f"{made['races']} races of two starts: one winner each")


@pytest.mark.skipif(not ALL, reason="takes minutes and 2 GB of disk: make torture")
def test_memory_while_training_on_a_long_text(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARRNN_CACHE", str(tmp_path / "cache"))
    block = "".join(f"{number * number % 99_991} words of a line that is not quite like the others\n" for number in range(16_000))
    long, short = tmp_path / "long.txt", tmp_path / "short.txt"
    short.write_text(block)
    with open(long, "w", encoding="utf-8") as file:
        for number in range(2_000_000_000 // len(block) + 1):
            file.write(f"{number} " + block)
    peaks = {}
    for text in (short, long):
        command = [sys.executable, "-m", "charrnn", "train", text, "--hidden", "64", "--steps", "20", "--out", tmp_path / text.stem]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks[text] = usage.ru_maxrss * 1024 / 1e6
    above = peaks[long] - peaks[short]
    found(14, f"training on {long.stat().st_size / 1e9:.1f} GB: {peaks[long]:.0f} MB at most, {above:.0f} above the same on 1 MB")
    assert above < 600
