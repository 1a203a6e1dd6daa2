"""The report of the statistical suite of noise and certified clipping: runs the C++ tests at full size and writes what they found.

    python benchmarks/noise_statistics.py --tests build/tests/tests/dpcore_tests [--samples 100000000] [--gradients 10000000]
        [--log FILE] [--output benchmarks/results/noise_statistics.json] [--page docs/noise_statistics.md]

Ten minutes on two cores. --log: what such a run has printed already, in place of a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from noise_bench import machine

SUITE = "CertifiedPass.NoGradient*:*SmallNoise*:*LargeNoise*:*NoiseTails*:*NoiseIndependence*:Attacks*:Noise.*"
FALSE_ALARM = "1e-6"

NOISE = re.compile(r"\[  noise   \] (\w+) +sigma (\S+) +(.+?) +samples (\d+) +(\S+)")
SEARCH = re.compile(r"\[ search   \] max_grad_norm (\S+) +most used (\S+)")
TOTAL = re.compile(r"\[ search   \] (\d+) gradients, (\d+) violations")
TESTS = re.compile(r"\[  (PASSED|FAILED)  \] (\d+) tests?[.,]")


def run_suite(tests: Path, samples: int, gradients: int) -> str:
    environment = os.environ | {"HUSHGRAD_NOISE_SAMPLES": str(samples), "HUSHGRAD_ADVERSARIAL_GRADIENTS": str(gradients)}
    done = subprocess.run([tests.resolve(), f"--gtest_filter={SUITE}"], env=environment, capture_output=True, text=True, check=False)
    return done.stdout


def read(log: str) -> dict[str, Any]:
    keys = ("sampler", "sigma_in_grid_steps", "statistic", "samples", "value")
    rows = [dict(zip(keys, found)) for found in NOISE.findall(log)]
    for row in rows:
        row.update(samples=int(row["samples"]), value=float(row["value"]), sigma_in_grid_steps=float(row["sigma_in_grid_steps"]))
        # Twice the smaller tail of a small count passes 1.
        row["kind"] = "z" if row["statistic"].startswith("mean") or row["statistic"].endswith(("values", "squares")) else "p"
        if row["kind"] == "p":
            row["value"] = min(1.0, row["value"])
    outcomes = {word: int(count) for word, count in TESTS.findall(log)}
    total = TOTAL.search(log)
    assert rows and total, "the log holds no run of the suite"
    return {
        "benchmark": "noise_statistics",
        "false_alarm_per_test": FALSE_ALARM,
        "machine": machine(),
        "tests": {"passed": outcomes.get("PASSED", 0), "failed": outcomes.get("FAILED", 0)},
        "noise": rows,
        "adversarial_search": {
            "gradients": int(total[1]),
            "violations": int(total[2]),
            "most_used_of_the_bound": {bound: float(used) for bound, used in SEARCH.findall(log)},
        },
    }


def page(result: dict[str, Any]) -> str:
    tests, search = result["tests"], result["adversarial_search"]
    lines = [
        "# The statistical suite, in full",
        "",
        "Written by `benchmarks/noise_statistics.py`, which runs the C++ tests of the noise at full size. Each p-value is that of a correct",
        f"program; a test fails at {result['false_alarm_per_test']}, and each z (in standard deviations) at as little probability. What is tested and why:",
        "[the lattice Gaussian](proofs/lattice_gaussian.md), [certified sensitivity](proofs/certified_sensitivity.md).",
        "",
        f"{result['machine']['processor']}. {tests['passed']} tests passed, {tests['failed']} failed.",
        "",
        f"Search for a gradient that adds more than `max_grad_norm` to a certified sum (NaN, infinite, subnormal, huge, cancelling, and whatever came",
        f"nearest before): {search['gradients']:,} gradients, {search['violations']} violations.",
        "",
        "| sampler | sigma, grid steps | statistic | samples | p or z |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result["noise"]:
        lines.append(
            f"| {row['sampler']} | {row['sigma_in_grid_steps']:g} | {row['statistic']} | {row['samples']:,} | {row['kind']} = {row['value']:.4g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=Path, default=Path("build/tests/tests/dpcore_tests"))
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--gradients", type=int, default=10_000_000)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    log = arguments.log.read_text() if arguments.log else run_suite(arguments.tests, arguments.samples, arguments.gradients)
    result = read(log)
    print(json.dumps({key: result[key] for key in ("machine", "tests", "adversarial_search")}, indent=2))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.page:
        arguments.page.write_text(page(result))
    if result["tests"]["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
