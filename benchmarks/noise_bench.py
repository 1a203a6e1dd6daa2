"""Noise beside ``torch.Tensor.normal_``, in one run and in turn: what a step's noise costs.

``normal_`` fills a float32 tensor with normal numbers. The lattice noise is drawn, added to a sum of the same size, scaled
and written back, with the fast sampler and with the exact one. Medians and minima of ``--repeats`` after one warm-up. With
``--clock cpu`` the processor time of all threads together is measured, which other work on the machine hardly disturbs. The
time of one tile is also printed for sums of different values, with Welch's t between them: a report, not a test.

    OMP_NUM_THREADS=2 python benchmarks/noise_bench.py [--coordinates 25000000] [--output benchmarks/results/noise.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
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
    """Microseconds of one tile by the values of the sum, in turn; t beyond 4.5 would be a difference worth a look."""
    sums = {"zeros": torch.zeros(TILE), "ones": torch.ones(TILE), "tiny": torch.full((TILE,), 1e-38), "random": torch.randn(TILE)}
    taken: dict[str, list[float]] = {name: [] for name in sums}
    for _ in range(repeats):
        for name, values in sums.items():
            tile = values.clone().numpy()
            start = time.perf_counter_ns()
            _core.add_lattice_noise_for_testing(tile, 1.0, 1.0)
            taken[name].append((time.perf_counter_ns() - start) / 1e3)
    kept = {name: sorted(us)[: int(0.9 * repeats)] for name, us in taken.items()}  # without interruptions
    base = kept["zeros"]

    def welch(us: list[float]) -> float:
        spread = statistics.variance(us) / len(us) + statistics.variance(base) / len(base)
        return (statistics.mean(us) - statistics.mean(base)) / math.sqrt(spread)

    return {name: {"mean_us": statistics.mean(us), "welch_t_against_zeros": welch(us)} for name, us in kept.items()}


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
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
