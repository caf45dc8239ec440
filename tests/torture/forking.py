"""The command in processes that are forked from one that has loaded torch already: a start costs milliseconds instead of seconds.

Nothing here may start a thread before it forks: one thread for torch, and no gradients in this process.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
import typer

from charrnn import checkpoint, cli, trainer, training

warnings.filterwarnings("ignore", category=DeprecationWarning)
torch.set_num_threads(1)
# What the command loads as it goes along.
for name in ("corpus", "screen", "settings", "text", "session", "machine", "dashboard"):
    __import__(f"charrnn.{name}")
typer.main.get_command(cli.app).commands["train"].make_context("train", ["x", "--steps", "1"])

VERSE = "Trăm năm trong cõi người ta,\nChữ tài chữ mệnh khéo là ghét nhau.\nTrải qua một cuộc bể dâu,\n"
STEPS = 24
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHAPE = ("--hidden", "6", "--batch", "3", "--window", "9", "--steps", str(STEPS), "--dropout", "0.3", "--threads", "1", "--device", "cpu")
CELLS = (("--cell", "lstm"), ("--cell", "gru"), ("--cell", "gru", "--gru-reset", "after"), ("--cell", "rnn"), ("--cell", "mlp"),
         ("--cell", "lstm", "--layers", "2"), ("--cell", "gru", "--bidirectional"), ("--cell", "lstm", "--generations", "2"))
LEVELS = ("char", "byte", "word", "subword")
FORMS = [(*cell, "--level", level) for level in LEVELS for cell in CELLS]


def start(arguments, log, before=lambda: None):
    """The command in a process of its own, its talk in the file `log`, every step saved; `before` is called in it first. Its id."""
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if pid := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return pid
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # until the command hears signals itself
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    code = 1
    with contextlib.suppress(BaseException):
        out = log if isinstance(log, int) else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for name, fd in (("stdout", 1), ("stderr", 2)):  # those from before would seek in a pipe where this process had a file
            setattr(sys, name, open(fd, "w", buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115
        training.SAVE_EVERY = training.SAVE_LATEST = 0.0
        training.SAMPLE_EVERY = 1e9
        sys.argv = ["charrnn", *map(str, arguments)]
        before()
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            import traceback

            traceback.print_exc()
    os._exit(code if isinstance(code, int) else 1)


def wait(pid):
    """The exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Trial:
    """A form of the model, its undisturbed run, and another run to disturb."""

    def __init__(self, folder, form):
        self.folder, self.form = Path(folder), form
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.text, self.run, self.log = self.folder / "text.txt", self.folder / "run", self.folder / "log"
        self.text.write_text(VERSE * 25, encoding="utf-8")
        began = time.monotonic()
        assert wait(start(self.arguments(self.folder / "whole"), self.log)) == 0, self.log.read_text()
        self.seconds = time.monotonic() - began
        self.expected = ending(self.folder / "whole")

    def arguments(self, run, *more):
        states = any((run / name).exists() for name in (checkpoint.RESUME, checkpoint.PREVIOUS))
        given = ("--resume",) if states else (*SHAPE, *self.form)
        return ["train", self.text, "--out", run, "--json", *given, *more]

    def go_on(self, before=lambda: None, log=None):
        """Start or resume the run that is disturbed; the process id."""
        return start(self.arguments(self.run), log or self.log, before)

    def again(self):
        """Throw the disturbed run away."""
        shutil.rmtree(self.run, ignore_errors=True)

    def finish(self, before=lambda: None):
        """Resume to the end; whether it ended as the undisturbed run did."""
        code = wait(self.go_on(before))
        assert code == 0, self.log.read_text()
        return ending(self.run) == self.expected


def ending(run):
    """Weights, optimizer, metrics and all else of a run's end, but for the seconds it took."""
    tensors, about = checkpoint.read(run / checkpoint.RESUME)
    del about["progress"]["seconds"], about["sha256"]
    left = sorted({path.name for path in run.iterdir()} - {checkpoint.SAMPLES})  # what was sampled when is a matter of the clock
    return ({name: value.tobytes() for name, value in tensors.items()}, about, (run / checkpoint.MODEL).read_bytes(),
            (run / checkpoint.METRICS).read_bytes(), left)


def leave_out(part):
    """Make this process forget one part of the state as it resumes."""
    restore = trainer.Trainer.restore

    def restored(self, tensors):
        restore(self, tensors)
        progress = self.progress
        if part == "random numbers":
            self.generator.manual_seed(self.config.seed + 1)
        elif part == "optimizer":
            self.optimizer.reset()
        elif part == "schedule" and progress.step and not progress.done:
            progress.plans = [(0, 0.0, STEPS), (min(progress.step, STEPS - 1), 1e-9, STEPS)]
        elif part == "position":
            self.batches = Lost(**vars(self.batches))
            object.__setattr__(self.batches, "lost", progress.step)
        elif part == "recurrent state":
            self.state = self.model.zero_state(self.plan.batch)

    trainer.Trainer.restore = restored


class Lost(trainer.Batches):
    """Batches that begin at the first again."""

    def window_of(self, step, rows):
        return super().window_of(step - self.lost, rows)
