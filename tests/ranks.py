"""`python ranks.py FOLDER`: many small processes of one world, forked from one that has loaded torch; a task a line of JSON on stdin, what
was found on stdout. In tests: `with Ranks(folder) as ranks: ranks.command(...)`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "torture"), str(Path(__file__).parent)]


class Ranks:
    """The tasks below as methods."""

    def __init__(self, folder):
        self.process = subprocess.Popen([sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __getattr__(self, task):
        def called(**settings):
            self.process.stdin.write(json.dumps([task, settings]) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            assert answer, f"{task} ended in an error, see stderr"
            return json.loads(answer)

        return called

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


def agent():
    """A process that holds a store, as torchrun's does, for as long as this one lives; the port."""
    reading, writing = os.pipe()
    if not os.fork():
        from torch.distributed import TCPStore

        os.close(reading)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writing, str(store.port).encode())
        os.close(writing)
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.05)
        os._exit(0)
    os.close(writing)
    port = os.read(reading, 10).decode()
    os.close(reading)
    return port


def environment(rank, size, port, beside=None):
    """As torchrun makes it, for so many processes `beside` each other on a host; else all on one."""
    beside = beside or size
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank % beside), LOCAL_WORLD_SIZE=str(beside),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TORCHELASTIC_USE_AGENT_STORE="True", GLOO_SOCKET_IFNAME="lo")


def forked(size, port, work, timeout=30, beside=None):
    """`work(world)` in each of so many processes; the exit codes."""
    from forking import wait

    from charrnn.beginning import joined

    children = []
    for rank in range(size):
        if not (pid := os.fork()):
            code = 1
            try:
                environment(rank, size, port, beside)
                with joined(timeout) as world:
                    work(world)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(code)
        children.append(pid)
    return [wait(pid) for pid in children]


def exact(folder, port, *, size, shards, steps, text, out, form):
    """Train in float64; rank 0 writes the weights into the file `out`."""
    import numpy as np
    import torch

    from charrnn import recipe
    from charrnn.config import TrainingConfig
    from charrnn.corpus import prepare
    from charrnn.text import open_text
    from charrnn.trainer import Trainer

    config = TrainingConfig(hidden=7, batch=5, window=9, steps=steps, dropout=0.3, weight_drop=0.2, shards=shards, **form)
    corpus = prepare(open_text([text]), level="char", valid=0.1)

    def work(world):
        torch.set_default_dtype(torch.float64)
        shape = recipe.shape(config, corpus.training.tokens, corpus.tokenizer.size)
        plan = recipe.plan(config, shape, corpus.training.tokens, processes=world.size)
        trainer = Trainer(corpus, config, shape, plan, torch.device("cpu"), world)
        nats = [trainer.step()[0] for _ in range(steps)]
        if plan.generations > 1:
            trainer.again()
            nats.extend(trainer.step()[0] for _ in range(steps))
        weights = trainer.tensors()
        if not world.rank:
            np.savez(out, nats=nats, **weights)

    return forked(size, port, work)


def exchanged(folder, port, *, size, shards):
    """Random gradients summed by the exchange and, by the plain form, in the order of the shards; whether each rank has these bits."""
    import torch

    from charrnn.world import bounds

    def work(world):
        shapes = [(3, 5), (7,), (2, 3, 4)]
        every = [[torch.randn(shape, generator=torch.Generator().manual_seed(100 * shard + k)) for k, shape in enumerate(shapes)]
                 for shard in range(shards)]
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        gradients = world.gradients(parameters, shards)
        begin, end = bounds(shards, size)[world.rank : world.rank + 2]
        for turn in (1.0, 2.0):
            for shard in range(begin, end):
                for p, grad in zip(parameters, every[shard]):
                    p.grad = turn * grad
                gradients.take()
            nats, said = gradients.summed([0.1 + shard for shard in range(begin, end)], (world.rank / 3, turn))
            assert nats == [0.1 + shard for shard in range(shards)] and said == [[rank / 3, turn] for rank in range(size)]
            for k, p in enumerate(parameters):
                total = turn * every[0][k]
                for shard in range(1, shards):
                    total = total + turn * every[shard][k]
                assert torch.equal(p.grad, total)

    return forked(size, port, work)


def patient(folder, port, *, size, beside, slow, seconds, silent):
    """Work that takes one process of several hosts longer than the timeout; `silent`: it shows no signs of life meanwhile."""
    from charrnn import distributed

    def work(world):
        distributed.BEAT = 1e9 if silent else 0.1
        world.in_turn(lambda: time.sleep(seconds if world.rank == slow else 0))
        assert world.agree(world.rank) == [[rank] for rank in range(size)]

    return forked(size, port, work, timeout=seconds / 3, beside=beside)


def command(folder, port, *, size, arguments, at=None, texts=None, rounding=None):
    """`charrnn` in each rank; codes and what each said. at: [rank, step, signal], sent to itself; texts: by rank, in place of TEXT;
    rounding: [rank, step], whose weights are rounded there, and all save after each step."""
    from forking import start, wait

    from charrnn import training

    def before(rank):
        environment(rank, size, port)
        if texts:
            sys.argv = [texts[rank] if word == "TEXT" else word for word in sys.argv]
        if rounding is not None:
            step = training.Trainer.step

            def rounded(self):
                if [rank, self.progress.step] == rounding:
                    for p in self.model.parameters():
                        p.data.copy_(p.data.bfloat16().float())
                return step(self)

            training.SAVE_LATEST, training.Trainer.step = 0.0, rounded
            return
        if at is None:
            training.SAVE_EVERY = training.SAVE_LATEST = 1e9
            return
        step = training.Trainer.step

        def stepped(self):
            if [rank, self.progress.step] == at[:2]:
                os.kill(os.getpid(), getattr(signal, at[2]))
            return step(self)

        training.Trainer.step = stepped

    logs = [folder / f"log{rank}" for rank in range(size)]
    pids = [start(arguments, logs[rank], lambda rank=rank: before(rank)) for rank in range(size)]
    codes = [wait(pid) for pid in pids]
    return [codes, [log.read_text() for log in logs]]


if __name__ == "__main__":
    import forking  # noqa: F401 (loads torch)

    port = agent()
    for line in sys.stdin:
        task, settings = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):
            answer = globals()[task](Path(sys.argv[1]), port, **settings)
        print(json.dumps(answer), flush=True)
