"""Writes docs/models.md: every model of the capture tests with what its clipped sum differs from a float64 loop over samples.

    python tests/coverage_table.py [--cpp build/tests/tests/torch_ext_tests] [--output docs/models.md]

Needs the installed package, and the C++ test program for the C++ half.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "python"))
warnings.simplefilter("ignore")

import torch  # noqa: E402
from capture_architectures import ARCHITECTURES  # noqa: E402
from capture_networks import CASES  # noqa: E402
from test_capture import capture_of, clipped_sum, distance, median_norm, norm, run, sample_gradients  # noqa: E402

HEADER = """# Models that are tested

Each model is trained for a step on batches of 7, 2 and 1 samples; its sum of clipped per-sample gradients is compared with a
loop over single samples in float64. The number is the relative difference, largest over the batches; a test fails at 1e-5.
Written by `tests/coverage_table.py`.

"""


MODELS = {**CASES, **ARCHITECTURES}


def python_row(name: str) -> tuple[str, str]:
    case = MODELS[name]
    torch.manual_seed(0)
    try:
        module = case.build()
        batches = {size: case.inputs(size) for size in (7, 2, 1)}
        gradients = {size: sample_gradients(case, module, inputs, size) for size, inputs in batches.items()}
        clip = median_norm(gradients[7])
        capture = capture_of(module, clip, batch_first=case.batch_first, forward_is_checked=case.forward_is_checked)
        worst = 0.0
        for size, inputs in batches.items():
            expected = clipped_sum(gradients[size], clip)
            worst = max(worst, distance(run(capture, module, inputs, size, case), expected) / norm(expected))
    except Exception as error:  # a row of the table, not a crash
        return "fail", type(error).__name__
    return ("pass" if worst <= 1e-5 else "fail"), f"{worst:.0e}"


def cpp_rows(program: str) -> list[tuple[str, str]]:
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run([program, "--gtest_filter=Models/*", f"--gtest_output=json:{report.name}"], capture_output=True, check=False)
        suites = json.loads(Path(report.name).read_text())["testsuites"]
    rows: dict[str, str] = {}
    for suite in suites:
        for test in suite["testsuite"]:
            model = test["name"].split("/")[-1]
            verdict = "fail" if "failures" in test else "pass"
            rows[model] = "fail" if "fail" in (verdict, rows.get(model)) else "pass"
    return sorted(rows.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpp", default="build/tests/tests/torch_ext_tests")
    parser.add_argument("--output", type=Path, default=Path("docs/models.md"))
    arguments = parser.parse_args()
    lines = [HEADER, "## Python\n\n| model | result | difference |\n| --- | --- | --- |\n"]
    for name in MODELS:
        verdict, difference = python_row(name)
        lines.append(f"| {name} | {verdict} | {difference} |\n")
    if Path(arguments.cpp).exists():
        lines.append("\n## C++\n\nFlat and per-layer clipping, mean and sum, batches of 6.\n\n| model | result |\n| --- | --- |\n")
        lines += [f"| {name} | {verdict} |\n" for name, verdict in cpp_rows(arguments.cpp)]
    arguments.output.write_text("".join(lines))
    print(f"{sum('| pass' in line for line in lines)} pass, {sum('| fail' in line for line in lines)} fail: {arguments.output}")


if __name__ == "__main__":
    main()
