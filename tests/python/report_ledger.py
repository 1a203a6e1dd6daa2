"""A ledger with something of everything that a report shows, for several test files."""

from __future__ import annotations

from typing import Any

from hushgrad.accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent
from hushgrad.ledger import Dataset, Ledger

STEP = PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0))
DELTA = 1e-6
PLAN = {
    "adjacency": "add_or_remove_one",
    "clipping": "flat",
    "dataset_size": 40_000,
    "loss": "checked",
    "max_grad_norm": 1.0,
    "noise": "exact_lattice_gaussian",
    "noise_multiplier": 2.0,
    "random": "aes-256-ctr-drbg",
    "sampling": "poisson",
    "sampling_rate": 0.1,
    "sensitivity": "certified",
}


def run_steps(ledger: Ledger, dataset: str, event: DpEvent = STEP, count: int = 1, **info: Any) -> str:
    run = ledger.begin_run(dataset=dataset, **info)
    for _ in range(count):
        ledger.charge(run, event)
    return run


def full_ledger(path: str = ":memory:") -> Ledger:
    ledger = Ledger(path)
    ledger.describe_dataset(Dataset("ward-7", unit="patient", purposes=("triage",), actor="privacy office"))
    ledger.set_budget(dataset="ward-7", epsilon=4.0, delta=DELTA)
    ledger.record("policy", actor="office", digest="cd" * 48, policy="{}", version="3")
    for actor, status in (("m.okafor", "completed"), ("j.lind", "failed")):
        run = run_steps(ledger, "ward-7", count=6, purpose="triage", actor=actor, plan=PLAN)
        ledger.record("audit", action="begin_run", actor=actor, decision="allow", policy="3", reason="in purpose", subject=run)
        ledger.finish_run(run, status)
    ledger.record("approval", action="release", actor="d.ruiz", reason="data access committee", subject=run)
    ledger.record("release", actor="j.lind", artifact="triage-1", digest="ab" * 48, run=run)
    return ledger
