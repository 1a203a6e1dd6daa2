"""How the step's cost grows with batch, depth and width: three points each, beside plain PyTorch in the same run.

    python benchmarks/scaling_bench.py [--repeats 8] [--output benchmarks/results/scaling.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from models import GPT, Workload, text
from step_bench import hushgrad, machine, plain

WORDS, TIME = 2000, 128


def workload(batch: int, layers: int, width: int) -> Workload:
    return Workload(f"B={batch} L={layers} d={width}", batch, lambda: GPT(width, layers, TIME, WORDS), text(batch, TIME, WORDS))


AXES = {
    "batch": [workload(b, 2, 256) for b in (4, 8, 16)],
    "depth": [workload(8, layers, 256) for layers in (1, 2, 4)],
    "width": [workload(8, 2, d) for d in (128, 256, 512)],
}


def measure(work: Workload, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    steps = {"plain": plain(work), "hushgrad": hushgrad(work)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_number >= 2:
                seconds[name].append(time.perf_counter() - start)
    medians = {f"{name}_ms": statistics.median(values) * 1e3 for name, values in seconds.items()}
    return {**medians, "ratio": medians["hushgrad_ms"] / medians["plain_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results = {}
    for axis, works in AXES.items():
        results[axis] = {}
        for work in works:
            row = results[axis][work.name] = measure(work, arguments.repeats)
            print(f"{axis:6s} {work.name:18s} plain {row['plain_ms']:7.1f} ms  hushgrad {row['hushgrad_ms']:7.1f} ms  x{row['ratio']:.2f}", flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"machine": machine(), "repeats": arguments.repeats, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
