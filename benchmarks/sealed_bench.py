"""Sealed checkpoints beside safetensors and torch.save: the same 1 GB state, saved and loaded in turn, in one process.

    python benchmarks/sealed_bench.py [--gigabytes 1] [--rounds 7] [--folder DIR] [--output benchmarks/results/sealed.json]

A save is timed twice: as each writer does it (a sealed save is durable, it waits for the disk; the others do not), and with
one ``fsync`` for all, each time where nothing stands, a file of before having been removed. A load is timed until the weights are in a model that exists, which is what a script does with them:
``safetensors.torch.load_model``, ``torch.load`` and ``load_state_dict``, ``hushgrad.checkpoint.load(into=model)``; once with the
file in the page cache, as after a save, and once without, as after a restart. The order of the writers changes from round to
round; what is reported are medians, and of the ratios to safetensors the medians of each round's. CPU time is that of all
threads of the process.

Beside them, plain AES-256-GCM decryption of as many bytes from memory to memory: what no authenticated load goes below.

Training beside a save: steps of the same model, alone and while a save goes on in the background, of which the first makes the
copy of the state and the later ones use its memory again. In a process of its own at the usual priority, whatever that of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_aes import PlainAes
from torch import nn

from hushgrad import _core, checkpoint
from hushgrad.keys import Keyring


def make_model(gigabytes: float) -> nn.Module:
    """Linear layers of 16 MiB each."""
    layers = max(1, round(gigabytes * 2**30 / (2048 * 2048 * 4)))
    return nn.ModuleList([nn.Linear(2048, 2048, bias=False) for _ in range(layers)])


def sync(path: Path) -> None:
    """What a durable save ends with."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def timed(work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def forget(path: Path) -> None:
    """Takes a file out of the page cache."""
    sync(path)
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def with_ratios(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians of each writer, with the median over the rounds of its time by that of safetensors."""
    table = {name: median_of(values) for name, values in rows.items()}
    for name, row in table.items():
        row["ratio_to_safetensors"] = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(rows[name], rows["safetensors"], strict=True))
    return table


def training_beside_a_save(model: nn.Module, start: Callable[[], checkpoint.Saving], saves: int) -> dict[str, float]:
    """Seconds of steps alone and while a save goes on. The step of the call, which holds the copy of the state, is one of them."""
    layers = list(model.children())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    rows = torch.randn(16, 2048)

    def step(before: Callable[[], object] = lambda: None) -> float:
        begin = time.perf_counter()
        before()
        out = rows
        for layer in layers:
            out = layer(out)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    step()
    alone = [step() for _ in range(10)]
    called: list[float] = []
    beside: list[float] = []
    for _ in range(saves):
        handle: list[checkpoint.Saving] = []
        called.append(step(lambda: handle.append(start())))
        while not handle[-1].done():
            beside.append(step())
        handle[-1].wait()
        alone += [step() for _ in range(5)]
    usual = statistics.median(alone)
    extra = [a - usual for a in called + beside]
    return {
        "step_alone_median": usual,
        "step_alone_worst": max(alone),
        "step_of_the_first_save": called[0],
        "step_of_later_saves_median": statistics.median(called[1:] or called),
        "step_beside_a_save_median": statistics.median(beside or called),
        "step_worst": max(called[1:] + beside or called),
        "steps_beside_a_save": len(beside) / saves,
        "extra_steps_for_each_save": sum(extra) / usual / saves,
    }


def training_in_its_own_process(options: argparse.Namespace) -> dict[str, float]:
    words = [sys.executable, __file__, "--training-only", "--gigabytes", str(options.gigabytes), "--rounds", str(options.rounds)]
    words += ["--folder", str(options.folder)] if options.folder else []
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)))
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def print_training(options: argparse.Namespace) -> None:
    model = make_model(options.gigabytes)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        keyring = Keyring.create(Path(folder) / "keys")
        keyring.create_key(dataset="bench")

        def start() -> checkpoint.Saving:
            return checkpoint.save_async(Path(folder) / "sealed", model.state_dict(), keyring=keyring, dataset="bench", overwrite=True)

        print(json.dumps(training_beside_a_save(model, start, max(2, options.rounds // 2))))


def aes_gigabytes_per_second(threads: int) -> float:
    """AES-256-GCM through OpenSSL's EVP layer, 1 MiB pieces, one piece of work a thread: what a perfect writer could reach."""
    out = subprocess.run(
        ["openssl", "speed", "-seconds", "2", "-bytes", "1048544", "-multi", str(threads), "-evp", "aes-256-gcm"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    figures = [line.split()[-1] for line in out.splitlines() if "aes-256-gcm" in line.lower() and line.rstrip().endswith("k")]
    return float(figures[-1].rstrip("k")) * 1000 / 1e9 if figures else float("nan")


def machine() -> dict[str, Any]:
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), "")
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "torch": torch.__version__, "threads": torch.get_num_threads(), **_core.build_facts()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--training-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.training_only:
        print_training(options)
        return
    import safetensors.torch

    model = make_model(options.gigabytes)
    state = model.state_dict()
    size = sum(t.numel() * t.element_size() for t in state.values())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder_name:
        folder = Path(folder_name)
        keyring = Keyring.create(folder / "keys")
        keyring.create_key(dataset="bench")
        files = {name: folder / name for name in ("sealed", "safetensors", "torch")}

        def sealed_save() -> None:
            checkpoint.save(files["sealed"], state, keyring=keyring, dataset="bench", overwrite=True)

        def sealed_load() -> None:
            checkpoint.load(files["sealed"], keyring=keyring, into=model)

        def sealed_load_and_copy() -> None:
            model.load_state_dict(checkpoint.load(files["sealed"], keyring=keyring).state)

        def torch_load() -> None:
            model.load_state_dict(torch.load(files["torch"], weights_only=True))

        savers: dict[str, Callable[[], object]] = {
            "sealed": sealed_save,
            "safetensors": lambda: safetensors.torch.save_file(state, files["safetensors"]),
            "torch": lambda: torch.save(state, files["torch"]),
        }
        loaders: dict[str, Callable[[], object]] = {
            "sealed": sealed_load,
            "safetensors": lambda: safetensors.torch.load_model(model, files["safetensors"]),
            "torch": torch_load,
        }

        def durable(name: str) -> Callable[[], object]:
            def work() -> None:
                savers[name]()
                sync(files[name])

            return savers[name] if name == "sealed" else work

        def one_tensor() -> None:
            checkpoint.load(files["sealed"], keyring=keyring, only=["0.weight"])

        def cold(name: str) -> Callable[[], object]:
            forget(files[name])
            return loaders[name]

        kinds: dict[str, dict[str, Callable[[], object]]] = {
            "save_as_each_does": savers,
            "save_durable": {name: durable(name) for name in savers},
            "load": loaders,
        }
        rows: dict[str, dict[str, list[dict[str, float]]]] = {kind: {name: [] for name in savers} for kind in [*kinds, "load_cold"]}
        extra: dict[str, list[dict[str, float]]] = {"open_one_tensor": [], "load_without_into_and_copy": [], "plain_decryption": []}
        aes = PlainAes(size, torch.get_num_threads())
        for save in savers.values():
            save()  # warm-up
        for i in range(options.rounds):
            names = list(savers)[i % 3 :] + list(savers)[: i % 3]
            for kind, work in kinds.items():
                for name in names:
                    if kind != "load":
                        files[name].unlink()
                    os.sync()  # what one writer left to the disk is not paid by the next
                    rows[kind][name].append(timed(work[name]))
            extra["open_one_tensor"].append(timed(one_tensor))
            extra["plain_decryption"].append(timed(aes.decrypt))
            extra["load_without_into_and_copy"].append(timed(sealed_load_and_copy))
            for name in names:
                rows["load_cold"][name].append(timed(cold(name)))
        training = training_in_its_own_process(options)

    results: dict[str, Any] = {kind: with_ratios(by_name) for kind, by_name in rows.items()}
    results.update({name: median_of(values) for name, values in extra.items()})
    results["training_beside_a_save"] = training
    document = {
        "machine": machine(),
        "gigabytes": size / 1e9,
        "rounds": options.rounds,
        "aes_256_gcm_gigabytes_per_second": {f"{n} threads": aes_gigabytes_per_second(n) for n in (1, 2)},
        "results": results,
    }
    text = json.dumps(document, indent=2)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
