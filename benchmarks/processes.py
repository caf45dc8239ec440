"""What many processes cost: measured on this machine, and a model on paper carried on to more of them. `python -m benchmarks.processes`

A step of N processes that share a batch: seconds = a + c / N + u + 8 P (N - 1) / (N W) + 2 (N - 1) L

    a    forward and backward: what does not depend on the rows       P    parameters, float32
    c    the rest of it, for the whole batch by one process           W    bytes a second between two processes, one way
    u    clipping and the update, which every process makes           L    seconds that a message takes
a and c are found from steps of the whole batch and of half of it. Each process sends and receives P / N floats of each other's gradients,
then as much of the sums: 2 (N - 1) messages. Where the batch grows with N, c is not divided.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

STEPS, WARM = 30, 5
LARGE = 4_000_000  # floats of the exchange that W is measured with
# What is assumed: name, processes, FLOP/s of one (None: as measured here), W, L.
AHEAD = [("8 GPUs of one host, 30 TFLOP/s, 100 GB/s", 8, 30e12, 100e9, 20e-6), ("64 hosts like this one, 10 Gb/s", 64, None, 1.25e9, 50e-6),
         ("64 hosts like this one, 1 Gb/s", 64, None, 0.125e9, 100e-6)]
LAUNCHING = (2e-3, 1e-3)  # and a and u of a GPU: the seconds that the launching of kernels takes


@dataclass(frozen=True)
class Cost:
    """What one process needs for a step: seconds that are fixed (a), of compute (c) and update (u); of the exchange P, W and L."""

    fixed: float
    compute: float
    update: float
    parameters: int
    bandwidth: float = 1.0
    latency: float = 0.0

    def exchange(self, processes: int) -> float:
        """Seconds of a step that the gradients are on their way."""
        n = processes
        return 8 * self.parameters * (n - 1) / (n * self.bandwidth) + 2 * (n - 1) * self.latency

    def step(self, processes: int, *, growing: bool = False) -> float:
        """Seconds of a step; `growing`: each process has as many rows as one alone."""
        return self.fixed + self.compute / (1 if growing else processes) + self.update + self.exchange(processes)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process of a world: medians of a step's parts in seconds, and of the exchange alone."""
    from charrnn import machine

    machine.prepare()
    import torch

    from benchmarks.texts import drawn
    from charrnn import kernels
    from charrnn.beginning import joined
    from charrnn.config import TrainingConfig
    from charrnn.corpus import prepare
    from charrnn.planning import planned
    from charrnn.text import open_text
    from charrnn.trainer import Trainer

    with joined(120.0) as world:
        kernels.use_threads(arguments.threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "drawn.txt")
            path.write_text(drawn(300_000))
            corpus = prepare(open_text([path]), level="char", cache=None)
        config = TrainingConfig(hidden=arguments.hidden, batch=arguments.batch, window=arguments.window, steps=10**6)
        device = machine.device(arguments.device)
        plan = planned(corpus, config, device, began=time.monotonic(), world=world)
        trainer = Trainer(corpus, config, plan.model, plan.plan, device, world)
        spent = {"exchange": 0.0, "update": 0.0}

        def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*given: Any) -> Any:
                began = time.perf_counter()
                try:
                    return function(*given)
                finally:
                    spent[name] += time.perf_counter() - began
            return called

        exchange = trainer.gradients.summed
        trainer.gradients.summed = timed("exchange", exchange)  # type: ignore[method-assign]
        trainer.optimizer.step = timed("update", trainer.optimizer.step)  # type: ignore[method-assign]
        rows = []
        for _ in range(WARM + STEPS):
            spent.update(exchange=0.0, update=0.0)
            step = seconds(trainer.step)
            rows.append({"step": step, **spent})
        found: dict[str, Any] = {name: statistics.median(row[name] for row in rows[WARM:]) for name in rows[0]}
        found |= {"characters": arguments.batch * arguments.window / found["step"], "parameters": plan.model.parameters()}
        if world.size > 1:
            trips, exchanging, reducing = [], [], []
            flat = torch.zeros(plan.model.parameters())
            for _ in range(STEPS):
                for p in trainer.model.parameters():
                    p.grad = torch.ones_like(p)
                trainer.gradients.take()
                world.agree(0.0)
                exchanging.append(seconds(lambda: exchange([0.0], ())))
                world.agree(0.0)
                reducing.append(seconds(lambda: torch.distributed.all_reduce(flat)))
            large = [torch.nn.Parameter(torch.zeros(LARGE))]
            gradients = world.gradients(large, world.size)
            for _ in range(6):
                large[0].grad = torch.ones(LARGE)
                gradients.take()
                world.agree(0.0)
                trips.append(seconds(lambda: gradients.summed([0.0], ())))
            calls = [seconds(lambda: world.agree(0.0)) for _ in range(200)]
            found |= {"alone": statistics.median(exchanging), "all_reduce": statistics.median(reducing)}
            found |= {"bandwidth": 8 * LARGE * (world.size - 1) / world.size / min(trips), "latency": statistics.median(calls)}
    return found


def launched(arguments: argparse.Namespace, processes: int, threads: int, parts: int = 1, device: str = "cpu") -> dict[str, Any]:
    """`measured` in so many processes, with the batch or a part of it; rank 0's figures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found")
        shape = [f"--hidden={arguments.hidden}", f"--batch={arguments.batch // parts}", f"--window={arguments.window}",
                 f"--device={device}"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m",
                   "benchmarks.processes", f"--out={out}", f"--threads={threads}", *shape]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def report(arguments: argparse.Namespace) -> None:
    """The tables, as Markdown."""
    runs = {(n, threads): launched(arguments, n, threads) for n, threads in ((1, 2), (1, 1), (2, 1))}
    alone, half, pair = runs[1, 1], launched(arguments, 1, 1, parts=2), runs[2, 1]
    compute = 2 * (alone["step"] - half["step"])
    cost = Cost(alone["step"] - alone["update"] - compute, compute, alone["update"], alone["parameters"], pair["bandwidth"],
                pair["latency"])
    print(f"lstm 1 x {arguments.hidden}, batch {arguments.batch} x {arguments.window}, {cost.parameters:,} parameters: "
          f"a = {1e3 * cost.fixed:.1f} ms, c = {1e3 * cost.compute:.1f} ms, u = {1e3 * cost.update:.1f} ms, "
          f"W = {cost.bandwidth / 1e9:.2f} GB/s, L = {1e6 * cost.latency:.0f} µs; the exchange of 2 processes alone takes "
          f"{1e3 * pair['alone']:.1f} ms, torch's all_reduce of as many floats {1e3 * pair['all_reduce']:.1f} ms\n")
    print("| processes x threads | ms a step | of it in communication | characters/s | on paper, ms |\n|---|---|---|---|---|")
    for (n, threads), run in runs.items():
        paper = f"{1e3 * cost.step(n):.1f}" if threads == 1 else ""
        print(f"| {n} x {threads} | {1e3 * run['step']:.1f} | {run['exchange'] / run['step']:.0%} | {run['characters']:,.0f} | {paper} |")
    import torch

    if torch.cuda.is_available():
        run = launched(arguments, 1, 1, device="cuda")
        print(f"| one {torch.cuda.get_device_name()} | {1e3 * run['step']:.1f} | | {run['characters']:,.0f} | |")
    print("\n| on paper | ms a step | of it in communication | times the characters/s of 1 x 1 |\n|---|---|---|---|")
    for name, n, flops, bandwidth, latency in AHEAD:
        for growing in (False, True):
            ahead = replace(cost, bandwidth=bandwidth, latency=latency)
            if flops:
                computing = 6 * cost.parameters * arguments.batch * arguments.window / flops
                ahead = replace(ahead, fixed=LAUNCHING[0], compute=computing, update=LAUNCHING[1])
            step = ahead.step(n, growing=growing)
            faster = (n if growing else 1) * cost.step(1) / step
            print(f"| {name}, {'as many rows each' if growing else 'the same batch'} | {1e3 * step:.2f} | {ahead.exchange(n) / step:.0%} "
                  f"| {faster:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.out:
        return report(arguments)
    found = measured(arguments)
    if not int(os.environ.get("RANK", "0")):
        Path(arguments.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
