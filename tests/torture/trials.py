"""`python trials.py NAME COUNT FOLDER`: one kind of trial, in a process that only forks; what was found, as JSON on stdout."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from failing import Failing
from forking import FORMS, Trial, leave_out, start, wait

from charrnn import checkpoint, disk
from charrnn.errors import CheckpointError

EVERY = 15  # seconds between two lines of progress
told = [time.monotonic()]  # when the last one was written
PARTS = ("random numbers", "optimizer", "schedule", "position", "recurrent state")


def progress(done, count):
    """Say now and then how far the trials are."""
    if time.monotonic() - told[0] > EVERY:
        told[0] = time.monotonic()
        print(f"  {done:,} of {count:,}", flush=True)


def killed(trial, chance, before=lambda: None):
    """Start and kill a run at random moments until it ends; how many kills it took, and whether it ended as it should."""
    kills, span = 0, trial.seconds
    while True:
        pid = trial.go_on(before)
        time.sleep(chance.uniform(0, span))
        os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        if code == 0:  # it had ended before
            return kills, trial.finish()  # what was left to write is written now
        assert code == -signal.SIGKILL, trial.log.read_text()
        kills += 1
        span = min(span * 1.02, 10 * trial.seconds)  # so that it ends on a machine that is busy


def kills(count, folder):
    """SIGKILL at random moments, resumed, until the end."""
    chance, total, runs, wrong, forms = random.Random(1), 0, 0, [], set()
    trials = {}
    for number in range(10**6):
        if total >= count and (len(forms) == len(FORMS) or count < len(FORMS)):
            break
        form = FORMS[number * 5 % len(FORMS)]
        trial = trials.get(form) or trials.setdefault(form, Trial(folder / f"form{len(trials)}", form))
        trial.again()
        made, same = killed(trial, chance)
        total, runs = total + made, runs + 1
        progress(total, count)
        forms.add(form)
        wrong += [] if same else [form]
    return {"kills": total, "runs": runs, "forms": len(forms), "mismatches": len(wrong)}


def left_out(count, folder):
    """The same with one part of the state left out: it must show."""
    chance, noticed = random.Random(2), {}
    trial = Trial(folder / "run", FORMS[0])
    for part in PARTS:
        for _ in range(5):  # a run that was not killed between its first and its last step shows nothing
            trial.again()
            made, same = killed(trial, chance, lambda part=part: leave_out(part))
            if made and not same:
                break
        noticed[part] = not same
    return {"parts": len(PARTS), "noticed": sum(noticed.values()), "each": noticed}


def failing_calls(count, folder):
    """A kill, EIO or ENOSPC at each system call that a session makes to save: its first three saves, or `count` calls of them."""
    trial, tried, made = Trial(folder / "run", FORMS[1]), 0, 0
    calls = [place for place in range(1, 131) if count >= 520 or place % (520 // count) == 1]
    for at in calls:
        for how in (errno.EIO, errno.ENOSPC, "kill before", "kill after"):
            trial.again()
            until_step(trial, 4)
            known = checkpoint.newest_state(trial.run)[1]["progress"]["step"]
            code = wait(trial.go_on(lambda at=at, how=how: setattr(disk, "os", Failing(at, how))))
            assert code == -signal.SIGKILL if isinstance(how, str) else code in (0, 5), (at, how, code, trial.log.read_text())
            assert checkpoint.newest_state(trial.run)[1]["progress"]["step"] >= known, (at, how)
            assert trial.finish(), (at, how)
            tried, made = tried + 1, max(made, at)
            progress(tried, 4 * len(calls))
    return {"tried": tried, "calls": made}


def until_step(trial, step):
    """Run until that step is saved, then end it by Ctrl-C."""
    pid = trial.go_on()
    while True:
        try:
            if checkpoint.read(trial.run / checkpoint.RESUME)[1]["progress"]["step"] >= step:
                break
        except CheckpointError:
            pass
        time.sleep(0.001)
    os.kill(pid, signal.SIGINT)
    wait(pid)


def full_disks(count, folder):
    """File systems of many sizes: the last state that was saved loads, and the failure is one line."""
    trial, mounted, codes = Trial(folder / "run", FORMS[0]), folder / "small", []
    mounted.mkdir()
    most = 6 * (trial.folder / "whole" / checkpoint.RESUME).stat().st_size
    for number in range(count):
        size = 4096 * (2 + number * (most // 4096) // count)
        trial.run = mounted / "run"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mounted], check=True)
        try:
            codes.append(wait(trial.go_on()))
            said = trial.log.read_text()
            if codes[-1]:
                assert codes[-1] == 5 and said.count("\n") == 1 and str(mounted) in said, (size, codes[-1], said)
            states = [name for name in (checkpoint.RESUME, checkpoint.PREVIOUS) if (trial.run / name).exists()]
            if states:
                checkpoint.newest_state(trial.run)
            assert not [path for path in mounted.rglob(f"*{disk.ASIDE}")], size
            if states:
                subprocess.run(["mount", "-o", f"remount,size={2 * most}", mounted], check=True)
                assert trial.finish(), size
        finally:
            subprocess.run(["umount", mounted], check=True)
        progress(number + 1, count)
    return {"sizes": count, "refused": codes.count(5), "finished": codes.count(0)}


def signals(count, folder):
    """Ctrl-C and SIGTERM at random moments: an answer, the exit, an exact end."""
    chance, answers, exits, found = random.Random(3), [], [], {"SIGINT": 0, "SIGTERM": 0}
    trial = Trial(folder / "run", FORMS[0])
    for number in ("SIGINT", "SIGTERM"):
        while found[number] < count:
            trial.again()
            while True:
                reading, writing = os.pipe()
                pid = trial.go_on(log=writing)
                os.close(writing)
                time.sleep(chance.uniform(0, trial.seconds))
                sent = time.monotonic()
                os.kill(pid, getattr(signal, number))
                answered, said = None, b""
                while piece := os.read(reading, 65536):
                    answered, said = answered or time.monotonic() - sent, said + piece
                os.close(reading)
                code = wait(pid)
                if code == 0:  # it had ended before
                    break
                assert code in (128 + getattr(signal, number), -getattr(signal, number)), (number, code, said)
                exits.append(time.monotonic() - sent)
                answers.append(answered or exits[-1])
                found[number] += 1
            assert trial.finish(), number
            progress(sum(found.values()), 2 * count)
    return {**found, "slowest answer": max(answers), "slowest exit": max(exits), "mismatches": 0}


def races(count, folder):
    """Two starts at once in one folder."""
    trial = Trial(folder / "run", FORMS[0])
    for number in range(count):
        trial.again()
        gate, open_gate = os.pipe()
        logs = [folder / "one", folder / "other"]
        both = [start(trial.arguments(trial.run), log, lambda gate=gate: os.read(gate, 1)) for log in logs]
        os.write(open_gate, b"xx")
        codes = [wait(pid) for pid in both]
        assert sorted(codes) == [0, 4], (number, codes, [log.read_text() for log in logs])
        loser = codes.index(4)
        said = logs[loser].read_text()
        assert said.count("\n") == 1 and f"process {both[1 - loser]}" in said, said
        os.close(gate)
        os.close(open_gate)
        progress(number + 1, count)
    return {"races": count}


if __name__ == "__main__":
    name, count, folder = sys.argv[1:]
    print(json.dumps(globals()[name](int(count), Path(folder))))
