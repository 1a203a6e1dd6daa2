"""Where a private step spends more than an ordinary one: samples of perf by function, one thread, in percent of the ordinary step.

    python benchmarks/step_profile.py [--models gpt_d256,bert_small] [--steps 12] [--output benchmarks/results/step_profile.json]

Needs Linux's perf. Forward + backward + clip, as step_bench.py measures it; what a process does around the steps is taken off by a run
of one step. A sample is a thousandth of a second of processor time.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from models import WORKLOADS
from step_bench import CONTENDERS, machine

SHORTER = re.compile(r"at::native::|\(anonymous namespace\)::|std::|c10::|AVX2::|hushgrad::internal::")


def samples(model: str, contender: str, steps: int) -> collections.Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        run = [sys.executable, __file__, "--run", contender, "--models", model, "--steps", str(steps)]
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-o", data, *run], check=True, capture_output=True)
        text = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym"], check=True, capture_output=True, text=True).stdout
    return collections.Counter(SHORTER.sub("", line.strip().partition(" ")[2])[:70] for line in text.splitlines() if line.strip())


def per_step(model: str, contender: str, steps: int) -> dict[str, float]:
    many, one = samples(model, contender, steps), samples(model, contender, 1)
    return {name: (many[name] - one[name]) / (steps - 1) for name in many.keys() | one.keys()}


def profile(model: str, steps: int) -> dict[str, object]:
    plain, private = per_step(model, "plain", steps), per_step(model, "hushgrad", steps)
    total = sum(plain.values())
    more = {name: 100 * (private.get(name, 0) - plain.get(name, 0)) / total for name in plain.keys() | private.keys()}
    largest = sorted(more.items(), key=lambda item: -abs(item[1]))[:12]
    return {"ratio": sum(private.values()) / total, "percent_more": dict(sorted(largest, key=lambda item: -item[1]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="gpt_d256,gpt_d512,bert_small")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.run:
        step = CONTENDERS[arguments.run](WORKLOADS[arguments.models])
        for _ in range(arguments.steps):
            step()
        return
    results = {model: profile(model, arguments.steps) for model in arguments.models.split(",")}
    text = json.dumps({"machine": machine(), "steps": arguments.steps, "results": results}, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
