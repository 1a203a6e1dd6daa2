"""From a ledger to a report document: plain JSON data, nothing rendered yet."""

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from hushgrad.errors import InvalidArgument
from hushgrad.keys import Keyring
from hushgrad.ledger import Budget, Dataset, Ledger, Run, Verdict
from hushgrad.report import attack, comparison, controls, facts, papers, software, words
from hushgrad.report.charges import Charges
from hushgrad.report.document import SCHEMA, SCHEMA_VERSION, Signer, sealed
from hushgrad.report.keylog import describe
from hushgrad.report.numbers import to_json
from hushgrad.report.text import visible

CURVE_POINTS = 40
CURVE_POINTS_OF_MANY_EVENTS = 10
DEFAULT_DELTA = 1e-5

Json = dict[str, Any]

__all__ = ["SCHEMA", "SCHEMA_VERSION", "build"]


def build(
    ledger: Ledger,
    dataset: str | None = None,
    run: str | None = None,
    delta: float | None = None,
    *,
    sign: Signer | None = None,
    keyring: Keyring | None = None,
    certificates: Sequence[str] = (),
) -> Json:
    """Describes what was spent, as a JSON document with a digest of its content.

    The same ledger state and arguments on the same machine give the same content, byte for byte once rendered as JSON.

    Args:
        ledger: an open ledger, a file or a database; it is only read.
        dataset: report on this dataset only; None means every dataset in the ledger.
        run: list this run only. What is spent on its dataset still counts every run.
        delta: in (0, 1). None takes, for each dataset, the first of: the delta of its budget; the smallest
            `target_delta` of its runs' plans; a tenth of 1 / `dataset_size`; 1e-5. The document says which.
        sign: a `hushgrad.signing.SigningKey`; the document then carries its signature and its public key.
        keyring: its keys are listed, with their states, and its log is verified.
        certificates: of destruction, the JSON texts that `Keyring.shred` returned.

    Returns:
        {"schema", "schema_version", "digest", "content"}, and "signature" with `sign`; described by the JSON Schema in
        `schema/report.v1.json`. Infinite epsilon is the text "infinity". A ledger that does not verify gives a document
        without any numbers: none of them could be relied on.

    Raises:
        InvalidArgument: delta outside (0, 1), or a dataset or run that the ledger does not know.
        LedgerError: the ledger cannot be read at all.
        KeyError: the keyring or its log does not verify.
    """
    if delta is not None and not 0 < delta < 1:
        raise InvalidArgument(
            f"[report] Expected delta in (0, 1), received {delta}. Pass a small probability like 1e-6."
        )
    verdict = ledger.verify()
    names = _selected(ledger, dataset, run) if verdict.ok else []
    # The head is read before the charges: what another process charges meanwhile is counted, never missed.
    head = _ledger(ledger, verdict)
    keys = describe(keyring, certificates)
    records = papers.read(ledger.records() if verdict.ok else [])
    sections = [_dataset(ledger, name, run, delta) for name in names]
    certified = bool(sections) and all(section["privacy"]["sensitivity"] == "certified" for section in sections)
    content: Json = {
        "software": software.describe(),
        "scope": {"dataset": dataset, "run": run},
        "signer": None if sign is None else sign.id,
        "ledger": head,
        "privacy": {**words.PRIVACY, "sensitivity": "certified" if certified else "empirical"},
        "datasets": sections,
        "records": records,
        "keys": keys,
        "warnings": words.ledger_warnings(
            durable=ledger.durable,
            chain_ok=verdict.ok,
            missing=len(head["missing_heads"]),
            break_glass=len(papers.uses_of_break_glass(records)) + len(keys["log"]["break_glass"] if keys["log"] else []),
        ),
        "assumptions": words.ASSUMPTIONS,
        "not_covered": words.not_covered(certified=certified),
    }
    content.update(controls.evaluate(content))
    return sealed(content, sign)


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
    oldest = ledger.entries(first=1, limit=1)
    return {
        "name": "PostgreSQL" if _is_postgresql(ledger) else PurePath(ledger.path).name,
        "engine": "postgresql" if _is_postgresql(ledger) else "sqlite",
        "id": ledger.id if verdict.ok else None,
        "durable": ledger.durable,
        "names": "proven" if verdict.ok and ledger.has_access_rules else "taken at their word",
        "as_of": words.time(newest[0].time) if newest else None,
        "oldest": words.time(oldest[0].time) if oldest else None,
        "head": {"sequence": newest[0].sequence, "hash": newest[0].hash} if newest else None,
        "missing_heads": [{"sequence": h.sequence, "hash": h.hash} for h in ledger.missing()] if verdict.ok else [],
        "chain": {
            "ok": verdict.ok,
            "entries_verified": verdict.entries,
            "first_bad_entry": verdict.first_bad or None,
            "reason": visible(verdict.reason),
        },
    }


def _is_postgresql(ledger: Ledger) -> bool:
    # The address holds a user and a host, which a report need not tell.
    return ledger.path.startswith(("postgresql:", "postgres:"))


def _dataset(ledger: Ledger, name: str, only_run: str | None, delta: float | None) -> Json:
    charges = Charges.read(ledger.steps(dataset=name))
    budget = ledger.budget(name)
    rows = _rows(ledger, name, charges)
    chosen, source = (delta, "argument") if delta is not None else _default_delta(budget, [row.plan for row in rows])
    runs = [_run(row, charges.of_run(row.run_id), chosen) for row in rows if only_run in (None, row.run_id)]
    everything = [(row.run_id, facts.of_plan(row.plan), charges.of_run(row.run_id)) for row in rows]
    section: Json = {
        "dataset": visible(name),
        "description": _description(ledger.dataset(name)),
        "delta": chosen,
        "delta_source": source,
        "privacy": _privacy(
            ledger.dataset(name), [fact for _, fact, own in everything if len(own)],
            by_users=_only_users([row.plan for row, (_, _, own) in zip(rows, everything) if len(own)]),
        ),
        "steps": len(charges),
        "runs_total": len(rows),
        "runs": runs,
        "spent": _interval(charges.epsilon(chosen)),
        "budget": None if budget is None else _budget(budget, charges),
        "budgets": [_part(ledger, name, item, charges) for item in ledger.budgets(name)],
        "curve": _curve(charges, chosen),
        "runs_curve": _runs_curve(charges, [row.run_id for row in rows], chosen),
        "run_starts": [{"run_id": row.run_id, "step": charges.starts[row.run_id]}
                       for row in rows if row.run_id in charges.starts],
        "risk": attack.assess(charges),
        "sampling_assumptions": comparison.sampling_assumptions(charges, chosen),
        "calibration": comparison.calibration(charges, chosen),
    }  # fmt: skip
    section["summary"] = words.summary(section)
    section["warnings"] = words.dataset_warnings(
        section,
        non_private=[run_id for run_id, _, own in everything if not _is_private(own)],
        insecure=[run_id for run_id, fact, _ in everything if fact["random"] == "insecure"],
        unchecked=[run_id for run_id, fact, _ in everything if fact["loss"] == "unchecked"],
    )
    return section


def _rows(ledger: Ledger, name: str, charges: Charges) -> list[Run]:
    """Runs on the dataset, then those on datasets made from it, which it pays for too."""
    own = ledger.runs(dataset=name)
    known = {row.run_id for row in own}
    return [*own, *(ledger.run(run_id) for run_id in charges.starts if run_id not in known)]


def _description(info: Dataset | None) -> Json | None:
    if info is None:
        return None
    return {
        "unit": visible(info.unit),
        "adjacency": visible(info.adjacency),
        "size_class": visible(info.size_class),
        "purposes": [visible(purpose) for purpose in info.purposes],
        "retention": None if info.retention is None else words.time(info.retention),
        "parents": [visible(parent) for parent in info.parents],
        "transformation": visible(info.transformation),
        "actor": visible(info.actor),
    }


def _only_users(plans: Sequence[Json]) -> bool:
    # Ledgers of today add up runs of one unit only; one from before may hold both, and then promises records.
    return len(plans) > 0 and all(plan.get("unit") == "user" for plan in plans)


def _privacy(info: Dataset | None, plans: Sequence[Json], by_users: bool) -> Json:
    """The weakest of what the runs say: a report must not look better than its worst run."""
    own = words.USER_UNIT if by_users else words.PRIVACY["unit"]
    return {
        "unit": visible(info.unit) if info and info.unit else own,
        "adjacency": words.PRIVACY["adjacency"],
        "accountant": words.PRIVACY["accountant"],
        **{key: facts.weakest(key, [plan[key] for plan in plans]) for key in ("sensitivity", "random", "float_safety")},
    }


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
    found = facts.of_plan(row.plan)
    return {
        "run_id": row.run_id,
        "dataset": visible(row.dataset),
        "purpose": visible(row.purpose),
        "actor": visible(row.actor),
        "status": row.status,
        "started": words.time(row.started),
        "finished": None if row.finished is None else words.time(row.finished),
        "steps": len(charges),
        "refused_charges": row.refusals,
        "reserved_steps": row.reserved,
        "epsilon": _interval(charges.epsilon(delta)),
        "mechanisms": charges.mechanisms(),
        "plan": facts.shown(row.plan),
        "facts": found,
        "private": _is_private(charges),
        "insecure": found["random"] == "insecure",
    }


def _is_private(charges: Charges) -> bool:
    return all(mechanism["private"] for mechanism in charges.mechanisms())


def _is_number(value: object) -> bool:
    return facts.is_number(value)


def _interval(interval: tuple[float, float]) -> Json:
    return {"lower": to_json(interval[0]), "upper": to_json(interval[1])}


def _budget(budget: Budget, charges: Charges) -> Json:
    """Judged at the budget's own delta, whatever delta the rest of the report uses."""
    upper = charges.epsilon(budget.delta)[1]
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "set_at": words.time(budget.time),
        "spent": to_json(upper),
        "left": max(0.0, budget.epsilon - upper),
        "status": "within" if upper < budget.epsilon else "used_up" if upper == budget.epsilon else "passed",
    }


def _part(ledger: Ledger, name: str, budget: Budget, charges: Charges) -> Json:
    """A budget with the part of the runs that it counts: those of a purpose, of a person or a team, or all."""
    counted = [
        run_id
        for run_id in charges.starts
        if (row := ledger.run(run_id))
        and budget.purpose in ("", row.purpose)
        and budget.actor in ("", row.actor)
        and budget.team in ("", row.team)
    ]
    covered = charges if not (budget.purpose or budget.actor or budget.team) else charges.of_runs(counted)
    part = {**_budget(budget, covered), "purpose": visible(budget.purpose), "actor": visible(budget.actor)}
    part |= {"team": visible(budget.team), "period": budget.period}
    if budget.period:
        now = next(row for row in ledger.budget_status(name) if row.budget.sequence == budget.sequence)
        status = "within" if now.upper < budget.epsilon else "used_up" if now.upper == budget.epsilon else "passed"
        part |= {"spent": to_json(now.upper), "left": max(0.0, budget.epsilon - now.upper), "status": status}
    return part


def _curve(charges: Charges, delta: float) -> list[Json]:
    """Upper epsilon after 0 steps, after all of them, and at evenly spread counts between: at most CURVE_POINTS + 1."""
    total = len(charges)
    points = CURVE_POINTS if len(charges.counts) <= attack.MANY_EVENTS else CURVE_POINTS_OF_MANY_EVENTS
    marks = sorted({round(total * i / points) for i in range(points + 1)})
    return [{"step": mark, "epsilon": to_json(charges.first(mark).epsilon(delta)[1])} for mark in marks]


def _runs_curve(charges: Charges, run_ids: Sequence[str], delta: float) -> list[Json]:
    """Upper epsilon of the first runs together, in the order in which they began; at most CURVE_POINTS + 1 points."""
    total = len(run_ids)
    points = CURVE_POINTS if len(charges.counts) <= attack.MANY_EVENTS else CURVE_POINTS_OF_MANY_EVENTS
    marks = sorted({round(total * i / points) for i in range(points + 1)})
    return [{"runs": mark, "epsilon": to_json(charges.of_runs(run_ids[:mark]).epsilon(delta)[1])} for mark in marks]
