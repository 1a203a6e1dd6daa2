"""Accounting beside dp_accounting: queries, calibration, a heterogeneous history, and how wide the intervals are.

    PYTHONPATH=... python benchmarks/accounting_bench.py [--sweep 200] [--corners] [--seed 7] [--output benchmarks/results/accounting.json]

Processor time of one thread, the median of several runs after a first one, both libraries in the same process. Without
dp_accounting or prv_accountant their columns are null. With --corners every value of the sweep lies at an end of its
range in one of six.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from hushgrad.accounting import ComposedDpEvent, DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hushgrad.accounting import calibrate_noise, epsilon

CASES = [(0.01, 1.0, 10_000), (0.001, 0.6, 50_000), (256 / 60000, 1.1, 14_063), (4096 / 50000, 3.0, 2_500)]
DELTA = 1e-5


def seconds(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def training(q: float, sigma: float, steps: int) -> DpEvent:
    return SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)


def theirs(q: float, sigma: float, steps: int) -> float | None:
    try:
        library: Any = import_module("dp_accounting.pld.privacy_loss_distribution")
    except ImportError:
        return None

    def query() -> float:
        pld = library.from_gaussian_mechanism(sigma, sampling_prob=q)
        return float(pld.self_compose(steps).get_epsilon_for_delta(DELTA))

    return seconds(query, 2)


def theirs_prv(q: float, sigma: float, steps: int) -> float | None:
    try:
        library: Any = import_module("prv_accountant")
    except ImportError:
        return None

    def query() -> float:
        mechanism = library.PoissonSubsampledGaussianMechanism(sampling_probability=q, noise_multiplier=sigma)
        accountant = library.PRVAccountant(prvs=[mechanism], max_self_compositions=[steps], eps_error=0.01, delta_error=DELTA / 1000)
        return float(accountant.compute_epsilon(delta=DELTA, num_self_compositions=[steps])[2])

    return seconds(query, 1)


def queries() -> list[dict[str, Any]]:
    rows = []
    for q, sigma, steps in CASES:
        event = training(q, sigma, steps)
        ours, other = seconds(lambda event=event: epsilon(event, DELTA), 15), theirs(q, sigma, steps)
        calibration = seconds(
            lambda q=q, steps=steps: calibrate_noise(target_epsilon=8, target_delta=DELTA, sampling_rate=q, steps=steps), 5
        )
        rows.append(
            {
                "sampling_rate": q,
                "noise_multiplier": sigma,
                "steps": steps,
                "epsilon": epsilon(event, DELTA),
                "seconds": ours,
                "dp_accounting_seconds": other,
                "prv_accountant_seconds": theirs_prv(q, sigma, steps),
                "times_faster": other / ours if other else None,
                "calibration_seconds": calibration,
            }
        )
    return rows


def import_seconds() -> float:
    """Of a fresh interpreter, its own start taken off."""
    program = "import time; start = time.process_time(); import hushgrad.accounting; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def history(runs: int) -> dict[str, Any]:
    random.seed(1)
    event = ComposedDpEvent(
        [training(random.uniform(0.001, 0.02), random.uniform(0.8, 2), random.randint(10, 200)) for _ in range(runs)]
    )
    start = time.process_time()
    bounds = epsilon(event, 1e-6)
    return {"runs": runs, "seconds": time.process_time() - start, "epsilon": bounds}


def share_of_range(corners: bool) -> float:
    value = random.random()
    return min(1.0, max(0.0, (value - 0.08) / 0.84)) if corners else value


def sweep(count: int, corners: bool, seed: int) -> dict[str, Any]:
    """sigma in [0.3, 50], q in [1e-6, 1], up to 10^6 steps, delta in [1e-12, 0.03]: all uniform in the logarithm."""
    random.seed(seed)
    widths = []
    for _ in range(count):
        shares = [share_of_range(corners) for _ in range(4)]
        sigma, q = 0.3 * (50 / 0.3) ** shares[0], min(1.0, 1e-6 * 1e6 ** shares[1])
        steps, delta = int(1e6 ** shares[2] + 1e-9), 10 ** (-12 + 10.5 * shares[3])
        start = time.process_time()
        lower, upper = epsilon(training(q, sigma, steps), delta)
        width = (upper - lower) / upper if upper > 0 else 0.0
        widths.append((width, q, sigma, steps, delta, time.process_time() - start))
    widths.sort(reverse=True)
    return {
        "count": count,
        "corners": corners,
        "seed": seed,
        "share_wider_than_1e-3": sum(row[0] > 1e-3 for row in widths) / count,
        "widest": [dict(zip(("width", "q", "sigma", "steps", "delta", "seconds"), row, strict=True)) for row in widths[:10]],
        "median_seconds": sorted(row[5] for row in widths)[count // 2],
        "largest_seconds": max(row[5] for row in widths),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweep", type=int, default=200)
    parser.add_argument("--corners", action="store_true")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = queries()
    faster = [row["times_faster"] for row in rows if row["times_faster"]]
    past, light = history(arguments.runs), import_seconds()
    document = {
        "machine": {"processor": platform.processor() or platform.machine(), "system": platform.platform()},
        "time": "processor time, one thread, median of several",
        "delta": DELTA,
        "queries": rows,
        "history": past,
        "import_seconds": light,
        "sweep": sweep(arguments.sweep, arguments.corners, arguments.seed),
        "goals": {
            "median_times_faster": {"goal": 30, "found": statistics.median(faster) if faster else None},
            "largest_calibration_seconds": {"goal": 0.1, "found": max(row["calibration_seconds"] for row in rows)},
            "history_seconds": {"goal": 1.0, "found": past["seconds"]},
            "import_seconds": {"goal": 0.1, "found": light},
        },
    }
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
