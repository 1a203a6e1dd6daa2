"""`hushgrad access`: who may do what in a ledger."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import typer

from hushgrad.access import role_table
from hushgrad.cli.files import read_small
from hushgrad.cli.identity import Identity, acting
from hushgrad.cli.output import Json, print_json, print_line, print_table
from hushgrad.errors import InvalidArgument
from hushgrad.ledger import Ledger
from hushgrad.signing import PublicKey

LedgerPath = Annotated[str, typer.Option("--ledger", help="The ledger: a file, or postgresql://user@host/database.")]
DEFAULT = "hushgrad.ledger.db"
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]

group = typer.Typer(help="Say who may do what in a ledger: actors, grants, break-glass.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="access")


@group.command()
def init(
    name: Annotated[str, typer.Option(help="Name of the first privacy officer.")],
    identity: Identity,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Switch access rules on: the holder of this key is the first actor and privacy officer. There is no way back."""
    opened = acting(ledger, identity)
    opened.found_access(name)
    if json:
        print_json({"actor": name, "ledger": opened.id})
        return
    print_line(f"{name!r} is the first privacy officer. From now on whoever acts proves it with a key.")


@group.command("list")
def list_(ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Show actors, grants, and break-glasses that wait for a review."""
    opened = Ledger(ledger, create=False)
    access = opened.access()
    if json:
        print_json(
            {
                "actors": [
                    {"key": a.key.id, "name": a.name, "revoked": a.revoked, "subject": a.subject, "team": a.team} for a in access.actors
                ],
                "break_glass": [
                    {"action": g.action, "actor": g.actor, "dataset": g.dataset, "expires": _when(g.expires), "reason": g.reason,
                     "review_due": _when(g.review_due), "reviewed": g.reviewed, "sequence": g.sequence}
                    for g in access.broken_glasses
                ],
                "grants": [
                    {"active": g.active, "dataset": g.dataset, "expires": _when(g.expires), "granted_by": g.granted_by, "name": g.name,
                     "purpose": g.purpose, "reason": g.reason, "role": g.role, "sequence": g.sequence, "starts": _when(g.starts)}
                    for g in access.grants
                ],
                "policy": access.policy_version,
                "rules": opened.has_access_rules,
            }
        )  # fmt: skip
        return
    if not opened.has_access_rules:
        print_line("This ledger has no access rules: names are taken at their word.", style="yellow")
        return
    print_table(("actor", "team", "key", ""), [(a.name, a.team, a.key.id, "revoked" if a.revoked else "") for a in access.actors])
    print_table(
        ("grant", "to", "role", "datasets", "purposes", "until (UTC)", ""),
        [(str(g.sequence), g.name, g.role, g.dataset, g.purpose, _when(g.expires) or "no end", "" if g.active else "over") for g in access.grants],
    )
    for glass in access.broken_glasses:
        if not glass.reviewed:
            print_line(
                f"break-glass {glass.sequence}: {glass.actor} opened {glass.action} on {glass.dataset!r} until {_when(glass.expires)}: "
                f"{glass.reason}; to be reviewed until {_when(glass.review_due)}",
                style="red",
            )


@group.command()
def roles(json: Json = False) -> None:
    """Show which role may do what."""
    table = role_table()
    if json:
        print_json(table)
        return
    print_table(("action", "roles"), [(action, ", ".join(names) or "whoever began the run") for action, names in table.items()])


@group.command("add-actor")
def add_actor(
    name: Annotated[str, typer.Argument(help="Of the actor.")],
    key: Annotated[Path, typer.Option(help="File with its public key (PEM).")],
    identity: Identity,
    team: Annotated[str, typer.Option(help="The team whose budgets count its runs.")] = "",
    subject: Annotated[str, typer.Option(help='"issuer#subject" of its tokens.')] = "",
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Add an actor, or give a known one another key, team or subject."""
    public = PublicKey.from_pem(read_small(key))
    sequence = acting(ledger, identity).add_actor(name, public, team=team, subject=subject)
    _done(json, sequence, f"{name!r} acts with key {public.id}")


@group.command()
def grant(
    name: Annotated[str, typer.Argument(help="Of the actor.")],
    role: Annotated[str, typer.Argument(help="trainer, approver, privacy_officer, auditor or key_custodian.")],
    identity: Identity,
    dataset: Annotated[str, typer.Option(help="Pattern; * stands for any text.")] = "*",
    purpose: Annotated[str, typer.Option(help="Pattern; * stands for any text.")] = "*",
    hours: Annotated[float, typer.Option("--for", help="How many hours it lasts.")] = 8.0,
    no_end: Annotated[bool, typer.Option("--no-end", help="It lasts until it is revoked.")] = False,
    starts: Annotated[datetime | None, typer.Option(help="When it begins (UTC).")] = None,
    reason: Reason = "",
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Give an actor a role for a while: eight hours unless told otherwise."""
    begin = None if starts is None else starts.replace(tzinfo=timezone.utc)
    if hours <= 0:
        raise InvalidArgument("[access grant] Expected --for above 0 hours, received less.")
    until = None if no_end else (begin or datetime.now(timezone.utc)) + timedelta(hours=hours)
    sequence = acting(ledger, identity).grant(name, role, dataset=dataset, purpose=purpose, starts=begin, expires=until, reason=reason)
    _done(json, sequence, f"grant {sequence}: {name!r} is {role} of {dataset!r} until {_when(until) or 'it is revoked'}")


@group.command()
def revoke(
    target: Annotated[str, typer.Argument(help="grant:SEQUENCE or actor:NAME.")],
    identity: Identity,
    reason: Reason = "",
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """End a grant, or an actor with all grants."""
    _done(json, acting(ledger, identity).revoke(target, reason=reason), f"revoked {target}")


@group.command("break-glass")
def break_glass(
    action: Annotated[str, typer.Argument(help="What to open: raise_budget, export_model, train, ...")],
    reason: Annotated[str, typer.Option(help="Why; shown in every report.")],
    identity: Identity,
    dataset: Annotated[str, typer.Option(help="Pattern; * stands for any text.")] = "*",
    minutes: Annotated[float, typer.Option("--for", help="How many minutes.")] = 15.0,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Act without a missing approval and against the policy, in an emergency. Somebody else has to review it."""
    sequence = acting(ledger, identity).break_glass(action, dataset=dataset, reason=reason, duration=timedelta(minutes=minutes))
    _done(json, sequence, f"break-glass {sequence}: {action} is open to you for {minutes:g} minutes. It will be reviewed.", "red")


@group.command()
def review(
    glass: Annotated[int, typer.Argument(help="Sequence of the break-glass.")],
    verdict: Annotated[str, typer.Argument(help="justified or unjustified.")],
    identity: Identity,
    reason: Reason = "",
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Judge somebody else's break-glass."""
    _done(json, acting(ledger, identity).review(glass, verdict, reason=reason), f"break-glass {glass} is {verdict}")


def _when(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _done(json: bool, sequence: int, words: str, style: str = "") -> None:
    if json:
        print_json({"sequence": sequence})
    else:
        print_line(words, style=style)
