"""From a ledger to a report document: plain JSON data, nothing rendered yet."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import rfc8785

from hushgrad.errors import InvalidArgument
from hushgrad.ledger import Budget, Ledger, Run, Verdict
from hushgrad.report import words
from hushgrad.report.charges import Charges
from hushgrad.report.numbers import to_json

SCHEMA = "hushgrad.report"
SCHEMA_VERSION = 1
CURVE_POINTS = 40
DEFAULT_DELTA = 1e-5

Json = dict[str, Any]

PLAN_FIELDS = (
    "accountant",
    "adjacency",
    "batch_first",
    "clipping",
    "dataset_size",
    "epochs",
    "expected_batch_size",
    "loss_reduction",
    "max_grad_norm",
    "noise",
    "noise_multiplier",
    "poisson_sampling",
    "random",
    "sampling",
    "sampling_rate",
    "sensitivity",
    "steps",
    "target_delta",
    "target_epsilon",
)
"""What may be copied from a run's plan. Everything else stays out: a plan is free text to the ledger, and a statistic
of the data that slipped into it (a batch size, a gradient norm, a loss) must not reach a page meant for release."""


def build(ledger: Ledger, dataset: str | None = None, run: str | None = None, delta: float | None = None) -> Json:
    """Describes what was spent, as a JSON document with a digest of its content.

    The same ledger state and arguments give the same document, byte for byte once rendered as JSON.

    Args:
        ledger: an open ledger; it is only read.
        dataset: report on this dataset only; None means every dataset in the ledger.
        run: list this run only. What is spent on its dataset still counts every run.
        delta: in (0, 1). None takes, for each dataset, the first of: the delta of its budget; the smallest
            `target_delta` of its runs' plans; a tenth of 1 / `dataset_size`; 1e-5. The document says which.

    Returns:
        {"schema", "schema_version", "digest", "content"}. Infinite epsilon is the text "infinity". A ledger that does
        not verify gives a document without any numbers: none of them could be relied on.

    Raises:
        InvalidArgument: delta outside (0, 1), or a dataset or run that the ledger does not know.
        LedgerError: the ledger cannot be read at all.
    """
    if delta is not None and not 0 < delta < 1:
        raise InvalidArgument(
            f"[report] Expected delta in (0, 1), received {delta}. Pass a small probability like 1e-6."
        )
    verdict = ledger.verify()
    names = _selected(ledger, dataset, run) if verdict.ok else []
    # The head is read before the charges: what another process charges meanwhile is counted, never missed.
    content: Json = {
        "software": {"name": "hushgrad", "version": _version()},
        "scope": {"dataset": dataset, "run": run},
        "ledger": _ledger(ledger, verdict),
        "privacy": words.PRIVACY,
        "datasets": [_dataset(ledger, name, run, delta) for name in names],
        "warnings": words.ledger_warnings(durable=ledger.durable, chain_ok=verdict.ok),
        "not_covered": words.NOT_COVERED,
    }
    return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "digest": digest(content), "content": content}


def digest(content: Mapping[str, Any]) -> Json:
    """SHA-384 of the canonical JSON (RFC 8785) of `content`."""
    return {
        "algorithm": "SHA-384",
        "over": "RFC 8785 canonical JSON of content",
        "value": hashlib.sha384(rfc8785.dumps(dict(content))).hexdigest(),
    }


def _version() -> str:
    try:
        return version("hushgrad")
    except PackageNotFoundError:
        return "unknown"


def _selected(ledger: Ledger, dataset: str | None, run: str | None) -> Sequence[str]:
    known = ledger.datasets()
    if dataset is not None and dataset not in known:
        raise InvalidArgument(
            f"[report] Expected a dataset of this ledger, received {dataset!r}. List them: hushgrad ledger status."
        )
    names = known if dataset is None else [dataset]
    if run is None:
        return names
    owners = [row.dataset for row in ledger.runs() if row.run_id == run and row.dataset in names]
    if not owners:
        where = "" if dataset is None else f" on dataset {dataset!r}"
        raise InvalidArgument(
            f"[report] Expected a run of this ledger{where}, received {run!r}. List them: hushgrad ledger history."
        )
    return owners


def _ledger(ledger: Ledger, verdict: Verdict) -> Json:
    newest = ledger.entries(first=ledger.head().sequence)[:1] if verdict.ok else ledger.entries()[-1:]
    return {
        "name": PurePath(ledger.path).name,
        "durable": ledger.durable,
        "as_of": _time(newest[0].time) if newest else None,
        "head": {"sequence": newest[0].sequence, "hash": newest[0].hash} if newest else None,
        "chain": {
            "ok": verdict.ok,
            "entries_verified": verdict.entries,
            "first_bad_entry": verdict.first_bad or None,
            "reason": verdict.reason,
        },
    }


def _dataset(ledger: Ledger, name: str, only_run: str | None, delta: float | None) -> Json:
    charges = Charges.read(ledger.steps(dataset=name))
    budget = ledger.budget(name)
    rows = ledger.runs(dataset=name)
    chosen, source = (delta, "argument") if delta is not None else _default_delta(budget, [row.plan for row in rows])
    runs = [_run(row, charges.of_run(row.run_id), chosen) for row in rows if only_run in (None, row.run_id)]
    section: Json = {
        "dataset": name,
        "delta": chosen,
        "delta_source": source,
        "steps": len(charges),
        "runs_total": len(rows),
        "runs": runs,
        "spent": _interval(charges.epsilon(chosen)),
        "budget": None if budget is None else _budget(budget, charges),
        "curve": _curve(charges, chosen),
        "run_starts": [{"run_id": row.run_id, "step": charges.run_ids.index(row.run_id)}
                       for row in rows if row.run_id in charges.run_ids],
    }  # fmt: skip
    non_private = [row.run_id for row in rows if not _is_private(charges.of_run(row.run_id))]
    insecure = [row.run_id for row in rows if _is_insecure(row.plan)]
    section["summary"] = words.summary(section)
    section["warnings"] = words.dataset_warnings(section, non_private=non_private, insecure=insecure)
    return section


def _default_delta(budget: Budget | None, plans: Sequence[Json]) -> tuple[float, str]:
    if budget is not None:
        return budget.delta, "budget"
    targets = [float(plan["target_delta"]) for plan in plans if _is_number(plan.get("target_delta"))]
    if targets := [target for target in targets if 0 < target < 1]:
        return min(targets), "plan"
    sizes = [plan["dataset_size"] for plan in plans if _is_number(plan.get("dataset_size"))]
    if sizes := [size for size in sizes if size >= 1]:
        return 1 / (10 * max(sizes)), "dataset_size"
    return DEFAULT_DELTA, "default"


def _run(row: Run, charges: Charges, delta: float) -> Json:
    return {
        "run_id": row.run_id,
        "purpose": row.purpose,
        "actor": row.actor,
        "status": row.status,
        "started": _time(row.started),
        "finished": None if row.finished is None else _time(row.finished),
        "steps": len(charges),
        "refused_charges": row.refusals,
        "reserved_steps": row.reserved,
        "epsilon": _interval(charges.epsilon(delta)),
        "mechanisms": charges.mechanisms(),
        "plan": {key: row.plan[key] for key in PLAN_FIELDS if _is_plain(row.plan.get(key))},
        "private": _is_private(charges),
        "insecure": _is_insecure(row.plan),
    }


def _is_private(charges: Charges) -> bool:
    return all(mechanism["private"] for mechanism in charges.mechanisms())


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _is_plain(value: object) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_insecure(plan: Json) -> bool:
    """Whether the run says that its randomness could be seeded. Names and values are matched broadly on purpose."""
    return any(
        ("insecure" in key.lower() and value) or (isinstance(value, str) and "insecure" in value.lower())
        for key, value in plan.items()
    )


def _interval(interval: tuple[float, float]) -> Json:
    return {"lower": to_json(interval[0]), "upper": to_json(interval[1])}


def _budget(budget: Budget, charges: Charges) -> Json:
    """Judged at the budget's own delta, whatever delta the rest of the report uses."""
    upper = charges.epsilon(budget.delta)[1]
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "set_at": _time(budget.time),
        "spent": to_json(upper),
        "left": max(0.0, budget.epsilon - upper),
        "status": "within" if upper < budget.epsilon else "used_up" if upper == budget.epsilon else "passed",
    }


def _curve(charges: Charges, delta: float) -> list[Json]:
    """Upper epsilon after 0 steps, after all of them, and at evenly spread counts between: at most CURVE_POINTS + 1."""
    total = len(charges)
    marks = sorted({round(total * i / CURVE_POINTS) for i in range(CURVE_POINTS + 1)})
    return [{"step": mark, "epsilon": to_json(charges.first(mark).epsilon(delta)[1])} for mark in marks]


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
