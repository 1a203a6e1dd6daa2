"""What the budget ledger costs a training step, and how long `verify` takes on a long ledger.

    python benchmarks/ledger_bench.py [--step-ms 50] [--steps 600] [--charges 1000000] [--output benchmarks/results/ledger.json]

The overhead is measured in one run: steps of `--step-ms` of arithmetic, each preceded by `charge_step` on a ledger file with a
budget; the time inside `charge_step`, commits included, over the time of the steps. The first steps reserve small blocks and so
wait for the disk more often; the whole run, with them, is what is reported first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noise_bench import machine

from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent
from hushgrad.ledger import Ledger

EVENT = PoissonSampledDpEvent(0.001, GaussianDpEvent(1.1))


def work(seconds: float) -> None:
    """Arithmetic, as a training step is: a sleeping processor would let the disk catch up."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


def overhead(folder: Path, step_seconds: float, steps: int) -> dict[str, Any]:
    """Of `charge_step` in a loop of steps."""
    os.environ["HUSHGRAD_STATE_DIR"] = str(folder / "state")
    ledger = Ledger(folder / "overhead.db")
    ledger.set_budget(dataset="ward-7", epsilon=50.0, delta=1e-6)
    run = ledger.begin_run(dataset="ward-7", purpose="benchmark")
    charges, whole = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        ledger.charge_step(run, EVENT)
        charged = time.perf_counter()
        work(step_seconds)
        charges.append(charged - begin)
        whole.append(time.perf_counter() - charged)
    ledger.finish_run(run)
    late = steps // 2
    return {
        "steps": steps,
        "step_ms": 1e3 * statistics.median(whole),
        "durable": ledger.durable,
        "charge_us_median": 1e6 * statistics.median(charges),
        "charge_us_largest": 1e6 * max(charges),
        "overhead": sum(charges) / sum(whole),
        "overhead_second_half": sum(charges[late:]) / sum(whole[late:]),
    }


def charged(folder: Path, charges: int) -> Iterator[str]:
    """The export of a ledger with that many charges: the last of a small one, again and again, each linked to the one before it."""
    small = Ledger(folder / "small.db")
    small.charge(small.begin_run(dataset="ward-7", purpose="benchmark"), EVENT)
    lines = list(small.export())
    yield from lines
    entry = json.loads(lines[-1])
    kind, payload = (_field(entry[key].encode()) for key in ("kind", "payload"))
    for _ in range(charges - 1):
        previous = bytes.fromhex(entry["hash"])
        entry.update(sequence=entry["sequence"] + 1, time=entry["time"] + 1, previous=previous.hex())
        text = _field(b"hushgrad ledger entry 1") + _u64(entry["sequence"]) + _u64(entry["time"]) + kind + payload + _field(previous)
        entry["hash"] = hashlib.sha384(text).hexdigest()
        yield json.dumps(entry)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _field(text: bytes) -> bytes:
    return _u64(len(text)) + text


def verification(folder: Path, charges: int) -> dict[str, Any]:
    """Of a ledger with that many charges, each an entry of its own, and not in blocks as a training writes them."""
    os.environ["HUSHGRAD_STATE_DIR"] = str(folder / "state")
    Ledger.import_lines(folder / "verify.db", charged(folder, charges))
    seconds = []
    for _ in range(3):
        again = Ledger(folder / "verify.db", create=False)
        begin = time.perf_counter()
        verdict = again.verify()
        seconds.append(time.perf_counter() - begin)
        if not verdict:
            raise SystemExit(verdict.reason)
    return {"charges": charges, "entries": verdict.entries, "verify_seconds": statistics.median(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--charges", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the ledgers are made: on the disk that is meant; default: the working directory")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    # A million commits need no disk to be read back.
    in_memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else arguments.folder
    with tempfile.TemporaryDirectory(dir=arguments.folder or Path.cwd()) as name, tempfile.TemporaryDirectory(dir=in_memory) as memory:
        result = {
            "machine": machine(),
            "step": overhead(Path(name), arguments.step_ms / 1e3, arguments.steps),
            "verify": verification(Path(memory), arguments.charges),
        }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
