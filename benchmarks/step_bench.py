"""Time and peak memory of one step: plain PyTorch, hushgrad, and Opacus (hooks and ghost), side by side in one run.

Forward + backward + clip, without noise and optimizer, on the same inputs; the contenders take turns, so that whatever
else the machine does hits all of them. Medians and minima of ``--repeats`` after warm-up; peak memory of four steps in a fresh
process each: the resident set above that of the loaded libraries, the model and the data, and beside it what tensors held at most
in the fourth step (the resident set depends on how malloc places and returns them).

The whole step, with loader, noise and optimizer (SGD), through PrivacyEngine and by plain PyTorch, takes turns likewise; beside it
one ``normal_`` over as many values as there are parameters, which is what noise may cost.

    python benchmarks/step_bench.py [--models mlp,cnn,...] [--repeats 10] [--output benchmarks/results/step.json]

Opacus is optional: pip install --no-deps opacus opt_einsum, and scipy. What it cannot run is reported as null.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from models import WORKLOADS, Workload
from torch import nn

Step = Callable[[], None]
warnings.filterwarnings("ignore")


def plain(work: Workload) -> Step:
    model, (x, y) = work.build(), work.data()

    def step() -> None:
        model.zero_grad()
        work.loss(model(x), y).backward()

    return step


def hushgrad(work: Workload, per_layer: bool = False) -> Step:
    from hushgrad._torch import UnnoisedCaptureForTesting

    model, (x, y) = work.build(), work.data()
    named = dict(model.named_parameters())
    owners = [name.rpartition(".")[0] for name in named]
    layers = list(dict.fromkeys(owners))
    groups = {"group_norms": [1.0] * len(layers), "group_of": [layers.index(owner) for owner in owners]} if per_layer else {}
    capture = UnnoisedCaptureForTesting(
        list(named.values()), list(named), max_grad_norm=1.0, mean=True, batch_first=True, forward_is_checked=True, **groups
    )

    gradients: list[torch.Tensor] = []  # live until the next step drops them, as .grad does under zero_grad()

    def step() -> None:
        gradients.clear()
        capture.begin_batch(work.batch)
        output = model(x)
        capture.watch([output])
        work.loss(output, y).backward()
        capture.accumulate()
        gradients.extend(capture.finish())

    return step


def opacus(work: Workload, mode: str) -> Step:
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    model, (x, y) = work.build(), work.data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loader = DataLoader(TensorDataset(x, y), batch_size=work.batch)
    common = dict(module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=1.0, poisson_sampling=False)
    if mode == "hooks":
        model, optimizer, _ = PrivacyEngine().make_private(**common)

        def step() -> None:
            optimizer.zero_grad()
            work.loss(model(x), y).backward()
            optimizer.clip_and_accumulate()
            for p in optimizer.params:
                p.grad_sample = None

        return step
    per_sample = nn.CrossEntropyLoss(reduction="mean")
    model, optimizer, criterion, _ = PrivacyEngine().make_private(criterion=per_sample, grad_sample_mode="ghost", **common)

    def ghost_step() -> None:
        optimizer.zero_grad()
        output = model(x)
        if output.dim() == 3:
            criterion(output.flatten(0, 1), y.flatten(), shape=output.shape).backward()
        else:
            criterion(output, y).backward()

    return ghost_step


CONTENDERS: dict[str, Callable[[Workload], Step]] = {
    "plain": plain,
    "hushgrad": hushgrad,
    "hushgrad_per_layer": lambda work: hushgrad(work, per_layer=True),
    "opacus_hooks": lambda work: opacus(work, "hooks"),
    "opacus_ghost": lambda work: opacus(work, "ghost"),
}


def timings(work: Workload, repeats: int, contenders: list[str]) -> dict[str, dict[str, float] | None]:
    steps: dict[str, Step] = {}
    failures: dict[str, str] = {}
    for name in contenders:
        try:
            steps[name] = CONTENDERS[name](work)
            for _ in range(3):
                steps[name]()
        except Exception as error:  # a peer that cannot run this model is a result, not a crash
            failures[name] = f"{type(error).__name__}: {error}"[:200]
            steps.pop(name, None)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    for name, reason in failures.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    return {
        name: {"median_ms": statistics.median(seconds[name]) * 1e3, "min_ms": min(seconds[name]) * 1e3} if name in seconds else None
        for name in CONTENDERS
    }


def whole_step(work: Workload, private: bool) -> Step:
    """On a data set of one batch: Poisson batches with rate 1 have no luck in them."""
    from torch.utils.data import DataLoader, TensorDataset

    model = work.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    loader = DataLoader(TensorDataset(*work.data()), batch_size=work.batch)
    if private:
        from hushgrad import PrivacyEngine

        PrivacyEngine(ledger=":memory:").make_private(module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)

    def step() -> None:
        for x, y in loader:
            optimizer.zero_grad()
            work.loss(model(x), y).backward()
            optimizer.step()

    return step


def normal(work: Workload) -> Step:
    values = [torch.empty_like(p) for p in work.build().parameters()]

    def step() -> None:
        for value in values:
            value.normal_()

    return step


def whole_steps(work: Workload, repeats: int) -> dict[str, dict[str, float]]:
    steps = {"plain": whole_step(work, False), "hushgrad": whole_step(work, True), "normal_": normal(work)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: {"median_ms": statistics.median(taken) * 1e3, "min_ms": min(taken) * 1e3} for name, taken in seconds.items()}


def resident_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_memory(work: Workload, contender: str) -> None:
    """In a fresh process: prints the peak above what is resident before the first step, and that of live tensors, in MiB."""
    step = CONTENDERS[contender](work)
    gc.collect()
    before = resident_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # peak starts here
    for _ in range(4):
        step()
    resident = (resident_kib("VmHWM") - before) / 1024
    print(resident, live_mib(step))


def live_mib(step: Step) -> float:
    """What tensors hold at most during a step, above the least that they hold in it (what an earlier step left is dropped)."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = least = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        least, most = min(least, now), max(most, now)
    return (most - least) / 2**20


def memory(work: Workload, contender: str) -> tuple[float, float] | tuple[None, None]:
    """(peak of the resident set, of live tensors)."""
    command = [sys.executable, __file__, "--memory-of", contender, "--models", work.name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return None, None
    resident, live = run.stdout.split()[-2:]
    return float(resident), float(live)


def machine() -> dict[str, object]:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {"cpu": model, "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(), "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="of the time; peers that instantiate 1024 x 41.6 M values do not fit")
    parser.add_argument("--output", type=Path, help="results are added to those of other models that are there")
    parser.add_argument("--memory-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    chosen = [WORKLOADS[name] for name in arguments.models.split(",")]
    if arguments.memory_of:
        measure_memory(chosen[0], arguments.memory_of)
        return
    contenders = arguments.contenders.split(",")
    results = {}
    if arguments.output and arguments.output.exists():
        results = json.loads(arguments.output.read_text())["results"]
    for work in chosen:
        times = timings(work, arguments.repeats, contenders)
        peaks = {name: memory(work, name) if times[name] else (None, None) for name in CONTENDERS}
        base_time, (base_peak, base_live) = times["plain"], peaks["plain"]
        assert base_time is not None and base_peak is not None and base_live is not None
        results[work.name] = {
            name: {
                **times[name],
                "time_ratio": times[name]["median_ms"] / base_time["median_ms"],
                "peak_mib": peaks[name][0],
                "peak_ratio": None if peaks[name][0] is None else peaks[name][0] / base_peak,
                "live_mib": peaks[name][1],
                "live_ratio": None if peaks[name][1] is None else peaks[name][1] / base_live,
            }
            if times[name] is not None
            else None
            for name in CONTENDERS
        }
        whole = results[work.name]["whole"] = whole_steps(work, arguments.repeats)
        print(f"{work.name:10s} whole step: " + ", ".join(f"{name} {row['median_ms']:.1f} ms" for name, row in whole.items()), flush=True)
        for name in CONTENDERS:
            row = results[work.name][name]
            if row is None:
                print(f"{work.name:10s} {name:18s} cannot run")
                continue
            peak = "" if row["peak_ratio"] is None else f"  peak {row['peak_mib']:.0f} MiB  x{row['peak_ratio']:.2f}, live {row['live_mib']:.0f} x{row['live_ratio']:.2f}"
            print(f"{work.name:10s} {name:18s} {row['median_ms']:8.1f} ms  x{row['time_ratio']:.2f} (min x{row['min_ms'] / base_time['min_ms']:.2f}){peak}", flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"machine": machine(), "repeats": arguments.repeats, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
