"""`hushgrad ledger`: make a ledger, cap a dataset, and read what was spent."""

from __future__ import annotations

import json as json_text
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from hushgrad.cli.output import as_json, print_json, print_line, print_table, rounded_up
from hushgrad.errors import LedgerError
from hushgrad.ledger import Entry, Ledger

DEFAULT = Path("hushgrad.ledger.db")
LedgerPath = Annotated[Path, typer.Option("--ledger", help="The ledger file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with exact numbers.")]

group = typer.Typer(help="Make a ledger, cap a dataset, and read what was spent.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="ledger")


@group.command()
def init(ledger: LedgerPath = DEFAULT) -> None:
    """Make a new ledger, readable by its owner only."""
    if os.path.lexists(ledger):
        raise LedgerError(f"[ledger init] Expected a path without a file, received {ledger}. Nothing was changed.")
    made = Ledger(ledger)
    print_line(f"made ledger {made.id} at {made.path}")
    if not made.durable:
        print_line("This folder is in memory: the ledger does not survive a power cut.", style="red")


@group.command("set-budget")
def set_budget(
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    epsilon: Annotated[float, typer.Option(help="Cap of the composed epsilon, finite and >= 0.")],
    delta: Annotated[float, typer.Option(help="Chance at which epsilon may fail, in (0, 1).")],
    ledger: LedgerPath = DEFAULT,
) -> None:
    """Cap a dataset. The newest budget wins; all stay on record."""
    opened = Ledger(ledger, create=False)
    opened.set_budget(dataset=dataset, epsilon=epsilon, delta=delta)
    _, spent = opened.spent(dataset=dataset, delta=delta)
    print_line(f"budget of {dataset!r}: epsilon {epsilon:g} at delta {delta:g}; spent so far: {rounded_up(spent)}")


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
    if any(row["reserved"] for row in rows):
        print_line("Reserved steps are spent: their process still trains, or it died before it could say how many it took.")
    if any(row["delta"] is None for row in rows):
        print_line("Give --delta to see what a dataset without a budget has spent.")


def _status_row(ledger: Ledger, name: str, delta: float | None) -> dict[str, Any]:
    budget = ledger.budget(name)
    at = delta if delta is not None else budget.delta if budget else None
    lower, upper = ledger.spent(dataset=name, delta=at) if at is not None else (None, None)
    runs = ledger.runs(name)
    return {
        "budget": None if budget is None else {"delta": budget.delta, "epsilon": budget.epsilon},
        "dataset": name,
        "delta": at,
        "epsilon_lower": None if lower is None else as_json(lower),
        "epsilon_upper": None if upper is None else as_json(upper),
        "refusals": sum(run.refusals for run in runs),
        "reserved": sum(run.reserved for run in runs),
        "runs": len(runs),
        "steps": sum(run.steps for run in runs),
    }


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
