"""`hushgrad approve`: ask for what takes a second person, sign it, carry it out."""

from __future__ import annotations

import json as json_text
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from hushgrad.approval import Approval, Operation, approve
from hushgrad.cli.identity import Identity, acting
from hushgrad.cli.output import Json, print_json, print_line, print_table
from hushgrad.errors import InvalidArgument
from hushgrad.signing import SigningKey

LedgerPath = Annotated[str, typer.Option("--ledger", help="The ledger: a file, or postgresql://user@host/database.")]
DEFAULT = "hushgrad.ledger.db"
RequestFile = Annotated[Path, typer.Argument(help="What hushgrad approve request wrote.")]

group = typer.Typer(help="Ask for what takes a second person, sign it, and carry it out.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="approve")


@group.command()
def request(
    action: Annotated[str, typer.Argument(help="train, raise_budget, add_purpose, export_model, move or repair.")],
    fields: Annotated[list[str] | None, typer.Argument(help="FIELD=VALUE, e.g. dataset=ward-7 epsilon=4 delta=1e-6.")] = None,
    reason: Annotated[str, typer.Option(help="Why; approvers read it.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="File to make.")] = Path("request.json"),
    hours: Annotated[float, typer.Option("--for", help="How many hours it can be carried out, 720 at most.")] = 24.0,
    identity: Identity = ...,  # type: ignore[assignment]
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Write down exactly what you want to do, for others to sign."""
    key = SigningKey.load(identity)
    opened = acting(ledger, identity)
    operation = opened.request(action, reason=reason, identity=key, lifetime=timedelta(hours=hours), **_fields(fields or []))
    operation.save(output)
    if json:
        print_json({"path": str(output), **_document(operation)})
        return
    _print(operation)
    print_line(f"wrote {output}; an approver signs it: hushgrad approve sign {output}")


@group.command()
def show(request: RequestFile, json: Json = False) -> None:
    """Show what a request asks for. Read it before you sign."""
    operation = Operation.load(request)
    if json:
        print_json(_document(operation))
        return
    _print(operation)


@group.command()
def sign(
    request: RequestFile,
    identity: Identity,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to make; default: beside the request.")] = None,
    json: Json = False,
) -> None:
    """Approve a request with your key."""
    operation = Operation.load(request)
    approval = approve(operation, SigningKey.load(identity))
    target = output or request.with_name(f"{request.stem}.{approval.approver[:8]}.approval.json")
    approval.save(target)
    if json:
        print_json({"approver": approval.approver, "operation": approval.operation, "path": str(target)})
        return
    _print(operation)
    print_line(f"approved with key {approval.approver}: {target}")


@group.command()
def apply(
    request: RequestFile,
    approvals: Annotated[list[Path], typer.Argument(help="What hushgrad approve sign wrote.")],
    identity: Identity,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Carry out what was approved, once. Exit code 3 when the approvals do not hold."""
    operation = Operation.load(request)
    opened = acting(ledger, identity)
    opened.apply(operation, [Approval.load(path) for path in approvals])
    print_json({"action": operation.action, "done": True}) if json else print_line(f"done: {operation.action}", style="green")


def _fields(pairs: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or key in fields or key in ("action", "reason", "identity", "lifetime"):
            raise InvalidArgument(f"[approve request] Expected FIELD=VALUE, each field once, received {pair!r}.")
        fields[key] = value
    return fields


def _document(operation: Operation) -> dict[str, object]:
    document: dict[str, object] = json_text.loads(operation.text)
    return document


def _print(operation: Operation) -> None:
    rows = [("action", operation.action), *operation.scope.items(), ("reason", operation.reason), ("asked by key", operation.requester)]
    print_table(("", ""), [*rows, ("expires", operation.expires.isoformat())])
