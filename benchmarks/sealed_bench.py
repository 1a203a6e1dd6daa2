"""Sealed checkpoints beside safetensors and torch.save: the same 1 GB state, saved and loaded in turn, in one process.

    python benchmarks/sealed_bench.py [--gigabytes 1] [--rounds 7] [--folder DIR] [--output benchmarks/results/sealed.json]

A save is timed twice: as each writer does it (a sealed save is durable, it waits for the disk; the others do not), and with
one ``fsync`` for all. A load is timed until the weights are in a model that exists, which is what a script does with them:
``safetensors.torch.load_model``, ``torch.load`` and ``load_state_dict``, ``hushgrad.checkpoint.load`` and
``load_state_dict``. The order of the writers changes from round to round; what is reported are medians. CPU time is that of
all threads of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
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


def aes_gigabytes_per_second(threads: int) -> float:
    """AES-256-GCM through OpenSSL's EVP layer, 1 MiB pieces, one piece of work a thread: what a perfect writer could reach."""
    import subprocess

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
    options = parser.parse_args()
    import safetensors.torch

    model = make_model(options.gigabytes)
    state = model.state_dict()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder_name:
        folder = Path(folder_name)
        keyring = Keyring.create(folder / "keys")
        keyring.create_key(dataset="bench")
        files = {name: folder / name for name in ("sealed", "safetensors", "torch")}

        def sealed_save() -> None:
            checkpoint.save(files["sealed"], state, keyring=keyring, dataset="bench", overwrite=True)

        def sealed_load() -> None:
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

        def latency() -> None:
            handle.append(checkpoint.save_async(files["sealed"], state, keyring=keyring, dataset="bench", overwrite=True))

        handle: list[checkpoint.Saving] = []
        kinds: dict[str, dict[str, Callable[[], object]]] = {
            "save_as_each_does": savers,
            "save_durable": {name: durable(name) for name in savers},
            "load": loaders,
        }
        rows: dict[str, dict[str, list[dict[str, float]]]] = {kind: {name: [] for name in savers} for kind in kinds}
        extra: dict[str, list[dict[str, float]]] = {"open_one_tensor": [], "background_save_returns_after": []}
        for save in savers.values():
            save()  # warm-up
        for i in range(options.rounds):
            names = list(savers)[i % 3 :] + list(savers)[: i % 3]
            for kind, work in kinds.items():
                for name in names:
                    os.sync()  # what one writer left to the disk is not paid by the next
                    rows[kind][name].append(timed(work[name]))
            extra["open_one_tensor"].append(timed(one_tensor))
            extra["background_save_returns_after"].append(timed(latency))
            handle[-1].wait()

    results: dict[str, Any] = {kind: {name: median_of(values) for name, values in work.items()} for kind, work in rows.items()}
    for by_name in results.values():
        for row in by_name.values():
            row["ratio_to_safetensors"] = row["seconds"] / by_name["safetensors"]["seconds"]
    results.update({name: median_of(values) for name, values in extra.items()})
    document = {
        "machine": machine(),
        "gigabytes": sum(t.numel() * t.element_size() for t in state.values()) / 1e9,
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
