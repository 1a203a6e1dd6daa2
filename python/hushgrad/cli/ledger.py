"""`hushgrad ledger`: make a ledger, cap a dataset, read what was spent, and keep what others can hold against it."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from hushgrad.access import digest_of
from hushgrad.cli.files import read_small
from hushgrad.cli.identity import MaybeIdentity, acting
from hushgrad.cli.output import as_json, print_json, print_line, print_result, print_table, rounded_up
from hushgrad.errors import InvalidArgument, LedgerError
from hushgrad.ledger import BudgetStatus, Dataset, Entry, Ledger, make_note_keys

DEFAULT = "hushgrad.ledger.db"
LedgerPath = Annotated[str, typer.Option("--ledger", help="The ledger: a file, or postgresql://user@host/database.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with exact numbers.")]

group = typer.Typer(help="Make a ledger, cap a dataset, and read what was spent.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="ledger")


@group.command()
def init(ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Make a new ledger, readable by its owner only."""
    if _exists(ledger):
        raise LedgerError(f"[ledger init] Expected a path without a file, received {ledger}. Nothing was changed.")
    made = Ledger(ledger)
    print_result(json, {"durable": made.durable, "ledger": made.id, "path": made.path}, f"made ledger {made.id} at {made.path}")
    if not made.durable and not json:
        print_line("This folder is in memory: the ledger does not survive a power cut.", style="red")


@group.command("set-budget")
def set_budget(
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    epsilon: Annotated[float, typer.Option(help="Cap of the composed epsilon, finite and >= 0.")],
    delta: Annotated[float, typer.Option(help="Chance at which epsilon may fail, in (0, 1).")],
    purpose: Annotated[str, typer.Option(help="Count only runs with this purpose.")] = "",
    actor: Annotated[str, typer.Option(help="Count only runs of this person.")] = "",
    team: Annotated[str, typer.Option(help="Count only runs of this team.")] = "",
    period: Annotated[str, typer.Option(help="Count only what is charged in it: month, quarter, year, or the last days: 30d.")] = "",
    warning: Annotated[float, typer.Option(help="Epsilon from which to warn; 0: none.")] = 0.0,
    set_by: Annotated[str, typer.Option("--by", help="Who sets it.")] = "",
    identity: MaybeIdentity = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Cap a dataset, or a part of its runs. The newest budget wins; all stay on record."""
    opened = acting(ledger, identity)
    opened.set_budget(
        dataset=dataset, epsilon=epsilon, delta=delta, purpose=purpose, actor=actor, warning=warning, set_by=set_by,
        team=team, period=period,
    )  # fmt: skip
    _, spent = opened.spent(dataset=dataset, delta=delta)
    document = {"dataset": dataset, "delta": delta, "epsilon": epsilon, "spent_upper": as_json(spent)}
    print_result(json, document, f"budget of {dataset!r}: epsilon {epsilon:g} at delta {delta:g}; spent so far: {rounded_up(spent)}")


@group.command()
def status(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    delta: Annotated[float | None, typer.Option(help="Where to read epsilon. Default: the budget's delta.")] = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Show what every dataset has spent of its budget."""
    opened = Ledger(ledger, create=False)
    head = opened.head()
    names = [name for name in opened.datasets() if dataset in (None, name)]
    rows = [_status_row(opened, name, delta) for name in names]
    if json:
        print_json(
            {
                "datasets": rows,
                "durable": opened.durable,
                "head": {"hash": head.hash, "sequence": head.sequence},
                "ledger": opened.id,
                "path": opened.path,
            }
        )
        return
    print_line(f"ledger {opened.path}, {head.sequence} entries")
    if not rows:
        print_line("Nothing on record." if dataset is None else f"Nothing on record for {dataset!r}.")
        return
    print_table(("dataset", "budget", "spent", "delta", "runs", "steps", "reserved", "refused"), [_status_cells(row) for row in rows])
    parts = [(row["dataset"], part) for row in rows for part in row["budgets"] if part["covers"] != "all runs"]
    if parts:
        print_table(("dataset", "part", "budget", "spent"), [_part_cells(name, part) for name, part in parts])
    for row in rows:
        for part in row["budgets"]:
            if part["warns"]:
                print_line(f"{row['dataset']!r}, {part['covers']}: has reached its warning level of {part['warning']:g}.", style="yellow")
    for glass in opened.access().broken_glasses:
        if not glass.reviewed:
            print_line(f"break-glass {glass.sequence} of {glass.actor} waits for a review: hushgrad access list.", style="red")
    if opened.missing():
        print_line("This ledger was put back from an older copy and takes no charge: hushgrad ledger repair.", style="red")
    if any(row["reserved"] for row in rows):
        print_line("Reserved steps are spent: their process still trains, or it died before it could say how many it took.")
    if any(row["delta"] is None for row in rows):
        print_line("Give --delta to see what a dataset without a budget has spent.")


def _exists(ledger: str) -> bool:
    if "://" not in ledger:
        return os.path.lexists(ledger)
    try:
        Ledger(ledger, create=False)
    except LedgerError:
        return False
    return True


def _status_row(ledger: Ledger, name: str, delta: float | None) -> dict[str, Any]:
    budget = ledger.budget(name)
    at = delta if delta is not None else budget.delta if budget else None
    lower, upper = ledger.spent(dataset=name, delta=at) if at is not None else (None, None)
    runs = ledger.runs(name)
    return {
        "budget": None if budget is None else {"delta": budget.delta, "epsilon": budget.epsilon},
        "budgets": [_part(status) for status in ledger.budget_status(name)],
        "dataset": name,
        "delta": at,
        "epsilon_lower": None if lower is None else as_json(lower),
        "epsilon_upper": None if upper is None else as_json(upper),
        "refusals": sum(run.refusals for run in runs),
        "reserved": sum(run.reserved for run in runs),
        "runs": len(runs),
        "steps": sum(run.steps for run in runs),
        "warning": budget.warning if budget and budget.warning and upper is not None and upper >= budget.warning else 0,
    }


def _part(status: BudgetStatus) -> dict[str, Any]:
    budget = status.budget
    words = [f"{what} {value}" for what, value in (("purpose", budget.purpose), ("actor", budget.actor), ("team", budget.team)) if value]
    if budget.period:
        words.append(f"last {budget.period[:-1]} days" if budget.period.endswith("d") else f"this {budget.period}")
    return {
        "actor": budget.actor,
        "covers": ", ".join(words) or "all runs",
        "delta": budget.delta,
        "epsilon": budget.epsilon,
        "epsilon_lower": as_json(status.lower),
        "epsilon_upper": as_json(status.upper),
        "period": budget.period,
        "purpose": budget.purpose,
        "sequence": budget.sequence,
        "since": None if status.since is None else status.since.isoformat(),
        "team": budget.team,
        "warning": budget.warning,
        "warns": status.warns,
    }


def _part_cells(name: str, part: dict[str, Any]) -> tuple[str, str, str, str]:
    return name, part["covers"], f"{part['epsilon']:g} at {part['delta']:g}", rounded_up(float(part["epsilon_upper"]))


def _status_cells(row: dict[str, Any]) -> list[str]:
    budget, upper = row["budget"], row["epsilon_upper"]
    return [
        row["dataset"],
        "none" if budget is None else f"{budget['epsilon']:g} at {budget['delta']:g}",
        "?" if upper is None else rounded_up(float(upper)),
        "?" if row["delta"] is None else f"{row['delta']:g}",
        str(row["runs"]),
        str(row["steps"]),
        str(row["reserved"]),
        str(row["refusals"]),
    ]


@group.command()
def history(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Show what happened, in order; successive charges of a run are one line."""
    opened = Ledger(ledger, create=False)
    opened.head()
    rows = [row for row in _events(opened) if dataset in (None, row["dataset"])]
    if json:
        print_json(rows)
        return
    cells = [(_span(row), row["time"], row["dataset"] or "", row["kind"], row["what"]) for row in rows]
    print_table(("entry", "time (UTC)", "dataset", "what", ""), cells)


def _span(row: dict[str, Any]) -> str:
    first, last = row["first"], row["last"]
    return str(first) if first == last else f"{first}-{last}"


def _events(ledger: Ledger) -> Iterator[dict[str, Any]]:
    owner = {run.run_id: run.dataset for run in ledger.runs()}
    run_of_event: dict[int, str] = {}
    run_of_block: dict[int, str] = {}

    def run_of(entry: Entry, payload: dict[str, Any]) -> str | None:
        if entry.kind == "event":
            run_of_event[entry.sequence] = payload["run"]
        if entry.kind == "reserve":
            run_of_block[entry.sequence] = run_of_event[payload["event"]]
        if entry.kind in ("charge", "reserve"):
            return run_of_event[payload["event"]]
        if entry.kind == "settle":
            return run_of_block[payload["reservation"]]
        run = payload.get("run")
        return None if run is None else str(run)

    described = ((entry, payload, run_of(entry, payload)) for entry, payload in _decoded(ledger))
    for (kind, run), members in groupby(described, key=lambda item: (item[0].kind, item[2])):
        # Only charges are many and alike.
        batch = list(members)
        for part in [batch] if kind in ("charge", "reserve") else [[one] for one in batch]:
            first, payload, _ = part[0]
            yield {
                "dataset": payload.get("dataset") or owner.get(run or ""),
                "first": first.sequence,
                "kind": kind,
                "last": part[-1][0].sequence,
                "run": run,
                "time": part[-1][0].time.strftime("%Y-%m-%d %H:%M:%S"),
                "what": _what(kind, payload, run, sum(payload.get("count", 1) for _, payload, _ in part)),
            }


def _decoded(ledger: Ledger) -> Iterator[tuple[Entry, dict[str, Any]]]:
    for entry in ledger.entries():
        yield entry, json_text.loads(entry.payload)


@group.command()
def describe(
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    unit: Annotated[str, typer.Option(help="Unit of privacy: record, patient, ...")] = "",
    adjacency: Annotated[str, typer.Option(help="add_or_remove_one, replace_one or zero_out.")] = "",
    size_class: Annotated[str, typer.Option(help="A coarse public size.")] = "",
    purpose: Annotated[list[str] | None, typer.Option(help="A purpose it may be used for; repeat. None: any.")] = None,
    retention: Annotated[datetime | None, typer.Option(help="No use from this time on (UTC).")] = None,
    parent: Annotated[list[str] | None, typer.Option(help="A dataset it was made from; repeat.")] = None,
    transformation: Annotated[str, typer.Option(help="How it was made from them, with a version.")] = "",
    actor: Annotated[str, typer.Option("--by", help="Who says so.")] = "",
    identity: MaybeIdentity = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Say what a dataset is, what it may be used for, and what it was made from."""
    until = None if retention is None else retention.replace(tzinfo=timezone.utc)
    acting(ledger, identity).describe_dataset(
        Dataset(
            dataset, unit, adjacency, size_class, tuple(purpose or ()), until, tuple(parent or ()), transformation, actor
        )
    )
    print_result(json, {"dataset": dataset, "described": True}, f"described {dataset!r}")


@group.command()
def explain(
    run: Annotated[str, typer.Argument(help="Id of the run, or how it begins.")],
    delta: Annotated[float, typer.Option(help="Where to read epsilon.")] = 1e-6,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Show what a run was, what it spent, and which budgets count it."""
    opened = Ledger(ledger, create=False)
    found = [row for row in opened.runs() if row.run_id.startswith(run)]
    if len(found) != 1:
        raise InvalidArgument(f"[ledger explain] Expected the id of one run, received one that fits {len(found)}.")
    (row,) = found
    lower, upper = opened.run_spent(row.run_id, delta)
    family = _family(opened, row.dataset)
    budgets = [
        (name, budget)
        for name in family
        for budget in opened.budgets(name)
        if budget.purpose in ("", row.purpose) and budget.actor in ("", row.actor)
    ]
    document = {
        "actor": row.actor,
        "budgets": [
            {
                "actor": budget.actor,
                "dataset": name,
                "delta": budget.delta,
                "epsilon": budget.epsilon,
                "purpose": budget.purpose,
                "sequence": budget.sequence,
            }
            for name, budget in budgets
        ],
        "counts_for": family,
        "dataset": row.dataset,
        "delta": delta,
        "epsilon_lower": as_json(lower),
        "epsilon_upper": as_json(upper),
        "events": json_text.loads(opened.run_history(row.run_id).to_json()),
        "finished": None if row.finished is None else row.finished.isoformat(),
        "plan": row.plan,
        "purpose": row.purpose,
        "refusals": row.refusals,
        "reserved": row.reserved,
        "run": row.run_id,
        "started": row.started.isoformat(),
        "status": row.status,
        "steps": row.steps,
    }
    if json:
        print_json(document)
        return
    print_line(f"run {row.run_id}: {row.status}, by {row.actor or 'nobody named'}, purpose: {row.purpose or 'none given'}")
    print_line(f"{row.steps} steps ({row.reserved} reserved), {row.refusals} refused; epsilon {rounded_up(upper)} at {delta:g}")
    print_line(f"counts for: {', '.join(family)}")
    cells = [(name, f"{b.epsilon:g} at {b.delta:g}", b.purpose or "any", b.actor or "anybody") for name, b in budgets]
    print_table(("dataset", "budget", "purpose", "actor"), cells)


def _family(ledger: Ledger, name: str) -> list[str]:
    found = [name]
    for current in found:
        info = ledger.dataset(current)
        found += [parent for parent in (info.parents if info else ()) if parent not in found]
    return found


@group.command()
def witness(
    key: Annotated[Path | None, typer.Option(help="File with the signer's key: print the head as a signed note.")] = None,
    check: Annotated[Path | None, typer.Option(help="A note to check against this ledger.")] = None,
    verifier: Annotated[str, typer.Option(help="The public key of whoever signed the note.")] = "",
    new_key: Annotated[str, typer.Option(help="Make a key of this name in the file of --key; print its public half.")] = "",
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Sign the head for somebody outside to keep, or check such a note. Exit code 1 when the ledger was put back."""
    if new_key and key is not None:
        signer, public = make_note_keys(new_key)
        with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(signer + "\n")
        print_result(json, {"verifier": public}, public)
        return
    opened = Ledger(ledger, create=False)
    if key is not None:
        note = opened.witness(read_small(key).strip())
        if json:
            print_json({"note": note})
        else:
            sys.stdout.write(note)
        return
    if check is None or not verifier:
        raise InvalidArgument("[ledger witness] Expected --key, or --check with --verifier, received neither.")
    if not opened.expect_note(read_small(check), verifier):
        raise LedgerError("[ledger witness] Expected a ledger that holds what the note says, received one that does not: it was "
                          "put back. Restore the newest copy, or have two people accept the loss: hushgrad ledger repair.")  # fmt: skip
    print_result(json, {"ok": True}, "ok: the ledger holds what the note says", style="green")


@group.command()
def release(
    kind: Annotated[str, typer.Argument(help="model, metrics or checkpoint.")],
    artifact: Annotated[str, typer.Option(help="What leaves: a name.")],
    file: Annotated[Path | None, typer.Option(help="The file that leaves; its SHA-384 is kept.")] = None,
    run: Annotated[str, typer.Option(help="Id of the run that made it.")] = "",
    dataset: Annotated[str, typer.Option(help="Default: that of the run.")] = "",
    recipient: Annotated[str, typer.Option(help="Who gets it.")] = "",
    identity: MaybeIdentity = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Put on record that something leaves, before it does. A model needs an approval where there are access rules."""
    digest = "" if file is None else digest_of(file)
    sequence = acting(ledger, identity).release(kind, artifact=artifact, digest=digest, run=run, dataset=dataset, recipient=recipient)
    print_result(json, {"digest": digest, "sequence": sequence}, f"release {sequence}: {artifact}")


@group.command()
def releases(ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Show what left."""
    found = Ledger(ledger, create=False).records("release")
    if json:
        print_json([{**row.fields, "sequence": row.sequence, "time": row.time.isoformat()} for row in found])
        return
    shown = ("kind", "artifact", "dataset", "actor", "recipient")
    cells = [(str(row.sequence), f"{row.time:%Y-%m-%d %H:%M:%S}", *(row.fields.get(name, "") for name in shown)) for row in found]
    print_table(("entry", "time (UTC)", "kind", "what", "dataset", "by", "to"), cells)


@group.command()
def repair(
    first: Annotated[str, typer.Option(help="Who accepts the loss.")],
    second: Annotated[str, typer.Option(help="Who else does.")],
    reason: Annotated[str, typer.Option(help="What happened.")],
    check: Annotated[Path | None, typer.Option(help="A note that this ledger does not fit.")] = None,
    verifier: Annotated[str, typer.Option(help="The public key of whoever signed the note.")] = "",
    identity: MaybeIdentity = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Take a ledger that was put back into use again, by two people. What was spent in the lost copy is unknown."""
    opened = acting(ledger, identity)
    if check is not None:
        opened.expect_note(read_small(check), verifier)
    opened.repair(first=first, second=second, reason=reason)
    print_result(json, {"repaired": True}, "repaired. What was spent in the lost copy is not known: lower the budgets.", style="yellow")


@group.command()
def export(identity: MaybeIdentity = None, ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Print every entry as one line of JSON; with --json as one document, which is not for import."""
    lines = acting(ledger, identity).export()
    if json:
        print_json({"entries": [json_text.loads(line) for line in lines]})
        return
    for line in lines:
        sys.stdout.write(line + "\n")


@group.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="What hushgrad ledger export printed.")],
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Make a ledger of an export, to restore it. Every entry is checked first."""
    with source.open(encoding="utf-8") as lines:
        made = Ledger.import_lines(ledger, lines)
    entries = made.head().sequence
    print_result(json, {"entries": entries, "ledger": made.id}, f"imported {entries} entries of ledger {made.id}")


@group.command()
def move(
    target: Annotated[str, typer.Argument(help="A place without a ledger: a file, or postgresql://user@host/database.")],
    actor: Annotated[str, typer.Option("--by", help="Who moves it.")] = "",
    identity: MaybeIdentity = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Move the ledger, verified; the old place takes no charge any more."""
    moved = acting(ledger, identity).move_to(target, actor=actor)
    entries = moved.head().sequence
    print_result(json, {"entries": entries, "path": moved.path}, f"moved {entries} entries to {moved.path}")


def _what(kind: str, payload: dict[str, Any], run: str | None, count: int) -> str:
    name = "" if run is None else f"run {run[:8]}"
    if kind == "genesis":
        return f"ledger {payload['ledger']}"
    if kind == "budget":
        return f"epsilon {payload['epsilon']:g} at delta {payload['delta']:g}"
    if kind == "run":
        return f"{name} by {payload['actor'] or 'nobody named'}, purpose: {payload['purpose'] or 'none given'}"
    if kind == "charge":
        return f"{name}, {count} step{'s' if count > 1 else ''}"
    if kind == "reserve":
        return f"{name}, {count} step{'s' if count > 1 else ''} reserved"
    if kind == "settle":
        return f"{name}, took {payload['used']} of the block of entry {payload['reservation']}"
    if kind == "migration":
        return f"schema {payload['from']} to {payload['to']}"
    if kind == "finish":
        return f"{name} {payload['status']}"
    if "event" not in payload:
        return ", ".join(f"{key}: {value}" for key, value in payload.items() if key not in ("dataset", "signature") and value not in ("", [], 0))
    return f"{name}, {json_text.dumps(payload['event'])}"


@group.command()
def verify(ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Check the whole chain. Exit code 1 when it is broken."""
    opened = Ledger(ledger, create=False)
    verdict = opened.verify()
    head = opened.head() if verdict else None
    if json:
        print_json(
            {
                "entries": verdict.entries,
                "first_bad": verdict.first_bad,
                "head": None if head is None else {"hash": head.hash, "sequence": head.sequence},
                "ok": verdict.ok,
                "reason": verdict.reason,
            }
        )
    elif head is not None:
        print_line(f"ok: {verdict.entries} entries, head {head.hash}", style="green")
    if verdict:
        return
    place = f"entry {verdict.first_bad}" if verdict.first_bad else "the file"
    raise LedgerError(f"[ledger verify] Expected an unbroken ledger, received a bad one: {place}: {verdict.reason}. "
                      "Keep the file, and restore a copy that verifies.")
