"""Noise beside ``torch.Tensor.normal_``, in one run and in turn: what a step's noise costs.

``normal_`` fills a float32 tensor with normal numbers. The lattice noise is drawn, added to a sum of the same size, scaled
and written back, with the fast sampler and with the exact one. Medians and minima of ``--repeats`` after one warm-up. With
``--clock cpu`` the processor time of all threads together is measured, which other work on the machine hardly disturbs. The
time of one tile is also printed for sums of different values, with Welch's t between them: a report, not a test. ``--memory`` adds the
peak memory of training steps with and without noise.

    OMP_NUM_THREADS=2 python benchmarks/noise_bench.py [--coordinates 25000000] [--output benchmarks/results/noise.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hushgrad import _core

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
TILE = 16_384


def in_turn(contenders: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Milliseconds of each contender."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if repeat > 0:
                taken[name].append(1e3 * (clock() - start))
    return {name: {"median_ms": statistics.median(ms), "min_ms": min(ms)} for name, ms in taken.items()}


def tile_times(repeats: int = 4000) -> dict[str, object]:
    """Microseconds of one tile by the values of the sum, after dudect (Reparaz, Balasch, Verbauwhede 2017): the class of every
    measurement is drawn at random, the slowest tenth (interruptions) is cut, and Welch's t against zeros is taken. |t| < 4.5 is the
    usual threshold for "no difference seen". Processor time of the thread, so that other work on the machine hardly counts."""
    sums = {"zeros": torch.zeros(TILE), "ones": torch.ones(TILE), "tiny": torch.full((TILE,), 1e-38), "random": torch.randn(TILE)}
    order = [name for name in sums for _ in range(repeats)]
    random.Random(1).shuffle(order)
    taken: dict[str, list[float]] = {name: [] for name in sums}
    tile = torch.empty(TILE).numpy()  # one place in memory for all
    for name in order:
        tile[:] = sums[name].numpy()
        start = time.thread_time_ns()
        _core.add_lattice_noise_for_testing(tile, 1.0, 1.0)
        taken[name].append((time.thread_time_ns() - start) / 1e3)
    kept = {name: sorted(us)[: int(0.9 * repeats)] for name, us in taken.items()}
    base = kept["zeros"]

    def welch(us: list[float]) -> float:
        spread = statistics.variance(us) / len(us) + statistics.variance(base) / len(base)
        return (statistics.mean(us) - statistics.mean(base)) / math.sqrt(spread)

    return {"threshold": 4.5} | {name: {"mean_us": statistics.mean(us), "welch_t_against_zeros": welch(us)} for name, us in kept.items()}


STEP = """
import resource, sys, torch
from torch.utils.data import DataLoader, TensorDataset
from hushgrad import PrivacyEngine
torch.set_num_threads(1)
noise, name, fused = float(sys.argv[1]), sys.argv[2], {"foreach": sys.argv[3] == "foreach", "fused": sys.argv[3] == "fused"}
module = torch.nn.Linear(4000, 4000)
optimizer = getattr(torch.optim, name)(module.parameters(), 0.1, **fused)
loader = DataLoader(TensorDataset(torch.randn(4, 4000)), batch_size=4)
PrivacyEngine(ledger=":memory:").make_private(
    module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=noise, max_grad_norm=1.0)
for _ in range(2):
    for (x,) in loader:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory() -> dict[str, object]:
    """Peak memory in KiB of a fresh process that trains 16 million parameters (65536 KiB), without and with noise."""

    def peak(noise: float, optimizer: str, kind: str) -> int:
        done = subprocess.run([sys.executable, "-c", STEP, str(noise), optimizer, kind], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    peaks = {}
    for optimizer, kind in (("SGD", "plain"), ("SGD", "foreach"), ("SGD", "fused"), ("Adam", "foreach"), ("Adam", "fused")):
        without, with_noise = peak(0.0, optimizer, kind), peak(1.0, optimizer, kind)
        peaks[f"{optimizer} {kind}"] = {"without_noise_kib": without, "with_noise_kib": with_noise, "more_kib": with_noise - without}
    return {"parameters_kib": 65_536, "peaks": peaks}


def machine() -> dict[str, object]:
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next((line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), name)
    return {"processor": name, "cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__, "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinates", type=int, default=25_000_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--memory", action="store_true", help="also peak memory of steps in fresh processes")
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    torch.set_num_threads(threads)

    filled, total = torch.empty(arguments.coordinates), torch.zeros(arguments.coordinates).numpy()
    result = {
        "benchmark": "noise",
        "coordinates": arguments.coordinates,
        "threads": threads,
        "clock": arguments.clock,
        "machine": machine(),
        "contenders": in_turn(
            {
                "torch.normal_": filled.normal_,
                "lattice_gaussian": lambda: _core.add_lattice_noise_for_testing(total, 1.0, 1.0),
            },
            arguments.repeats,
            CLOCKS[arguments.clock],
        )
        | in_turn(
            {"exact_lattice_gaussian": lambda: _core.add_lattice_noise_for_testing(total, 1.0, 1.0, exact=True)},
            1,
            CLOCKS[arguments.clock],
        ),
        "tile": tile_times(),
        "memory": memory() if arguments.memory else None,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
