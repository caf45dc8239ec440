"""Signals: heard while the tokenizer learns, answered at once, saved on the first, ended by the second."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from charrnn import cli, unigram
from charrnn.interrupt import SIGNALS, Interrupt, Stopped

SENTENCES = [" ".join(f"w{(place * place + place * word) % 97}x{word % 13}" for word in range(40)) for place in range(400)]


@pytest.fixture(autouse=True)
def handlers_as_before():
    before, hook = [signal.getsignal(number) for number in SIGNALS], sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def test_the_first_is_remembered_the_second_stops():
    said = []
    interrupt = Interrupt(said.append)
    interrupt.armed = True
    os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.signal == signal.SIGTERM and until(lambda: len(said) == 1)
    with pytest.raises(Stopped, match="--resume") as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.number == signal.SIGINT and interrupt.signal == signal.SIGTERM and len(said) == 1


def test_where_there_is_nothing_to_save_the_first_stops():
    said = []
    Interrupt(said.append)
    with pytest.raises(Stopped, match="nothing was left"):
        os.kill(os.getpid(), signal.SIGINT)
    assert not said


def test_in_a_finalizer_it_is_not_lost(capsys):
    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    interrupt = Interrupt(print)
    Finalized()
    assert interrupt.signal == signal.SIGINT and capsys.readouterr().err == ""


def test_the_answer_does_not_wait_for_a_long_call_in_c():
    said = []
    Interrupt(lambda _: said.append(time.monotonic())).armed = True
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000)
    ended = time.monotonic()
    assert until(lambda: said) and said[0] < ended - 0.3


def test_learning_aside_gives_the_same_bytes(monkeypatch):
    assert len("\n".join(SENTENCES)) > unigram.QUICK
    here = unigram.learn(SENTENCES, 400)
    monkeypatch.setattr(unigram, "learn", lambda *_: pytest.fail("not aside"))
    assert unigram.learn_aside(SENTENCES, 400) == here


def test_where_another_process_cannot_be_had_it_is_learnt_here(monkeypatch):
    here = unigram.learn(SENTENCES, 400)
    for executable in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        assert unigram.learn_aside(SENTENCES, 400) == here


def test_ctrl_c_while_a_module_in_c_is_loaded():
    def command(cause):
        raise ImportError("initialization failed") from cause

    with pytest.raises(Stopped, match="stopped; nothing"):
        cli.ending(command)(Stopped(signal.SIGINT, "stopped; nothing was left to save"))
    with pytest.raises(ImportError, match="initialization failed"):
        cli.ending(command)(None)


def test_ctrl_c_while_the_tokenizer_learns(tmp_path):
    text = "\n".join(f"{place * place % 9973} {' '.join(SENTENCES[place % 400][k::7] for k in range(5))}" for place in range(40_000))
    (tmp_path / "text.txt").write_text(text)
    process = subprocess.Popen([sys.executable, "-m", "charrnn", "train", "text.txt", "--level", "subword"], cwd=tmp_path,
                               stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 60
    while not (found := children.read_text().split()) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err and err.count("\n") == 1, err
    assert time.monotonic() - began < 5 and found
    assert not os.path.exists(f"/proc/{found[0]}") and not (tmp_path / "checkpoints").exists()


def test_ctrl_c_before_the_command_is_loaded():
    code = """import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "charrnn.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from charrnn.__main__ import main
main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
