"""What ``sensitivity="certified"`` costs: a whole private step of the same logical batch, certified and empirical, in turn.

    OMP_NUM_THREADS=2 python benchmarks/certified_bench.py [--clock cpu] [--output benchmarks/results/certified.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from noise_bench import CLOCKS, machine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine

BATCH = 64


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


class Contender:
    """Steps on all records of a data set of one batch: Poisson batches with rate 1 have no luck in them."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.module = network()
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.1)
        data = TensorDataset(torch.randn(BATCH, 784), torch.randint(10, (BATCH,)))
        self.loader: DataLoader[Any] = DataLoader(data, batch_size=BATCH)
        PrivacyEngine(ledger=":memory:").make_private(
            module=self.module, optimizer=self.optimizer, data_loader=self.loader, noise_multiplier=1.0, max_grad_norm=1.0, **options
        )

    def step(self) -> None:
        for x, y in self.loader:
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.module(x), y).backward()
            self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    clock = CLOCKS[arguments.clock]

    contenders = {
        "empirical": Contender(),
        "empirical, exact noise": Contender(noise="exact_lattice_gaussian"),
        "certified": Contender(sensitivity="certified"),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(arguments.repeats + 1):
        for name, contender in contenders.items():
            start = clock()
            contender.step()
            if repeat > 0:
                taken[name].append(1e3 * (clock() - start))
    result = {
        "benchmark": "certified",
        "model": "MLP 784-1024-1024-10",
        "parameters": sum(p.numel() for p in network().parameters()),
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "clock": arguments.clock,
        "machine": machine(),
        "step": {name: {"median_ms": statistics.median(ms), "min_ms": min(ms)} for name, ms in taken.items()},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
