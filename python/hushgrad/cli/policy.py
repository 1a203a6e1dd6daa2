"""`hushgrad policy`: write, check, try, sign and publish the policy of a ledger."""

from __future__ import annotations

import difflib
import json as json_text
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from hushgrad import policy as policies
from hushgrad.cli.files import read_small
from hushgrad.cli.identity import Identity, acting
from hushgrad.cli.output import Json, print_json, print_line
from hushgrad.errors import InvalidArgument, IoError, LedgerError
from hushgrad.ledger import Ledger
from hushgrad.signing import SigningKey

LedgerPath = Annotated[str, typer.Option("--ledger", help="The ledger: a file, or postgresql://user@host/database.")]
PolicyFile = Annotated[Path, typer.Argument(help="A policy: .toml, .yaml or .json.")]
DEFAULT = "hushgrad.ledger.db"
DENIED = 3

group = typer.Typer(help="Write, check, try, sign and publish the policy of a ledger.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="policy")


@group.command()
def init(path: Annotated[Path, typer.Argument(help="File to make.")] = Path("policy.toml"), json: Json = False) -> None:
    """Write an example to begin with."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(policies.EXAMPLE)
    except OSError as error:
        raise IoError(f"[policy init] Expected to write {path}, where nothing may stand yet, received: {error.strerror}.") from error
    print_json({"path": str(path)}) if json else print_line(f"wrote {path}; edit it, then: hushgrad policy check {path}")


@group.command()
def check(file: PolicyFile, json: Json = False) -> None:
    """Say whether a file is a policy, and what is wrong with it."""
    document = json_text.loads(policies.load(file))
    rules = [rule["id"] for rule in document.get("rule", [])]
    if json:
        print_json({"ok": True, "rules": rules, "version": document["version"]})
        return
    print_line(f"ok: version {document['version']}, {len(rules)} rules; what none of them allows is denied", style="green")


@group.command()
def test(
    file: Annotated[Path | None, typer.Argument(help="A policy that is not in force; default: the one that is.")] = None,
    actor: Annotated[str, typer.Option(help="Who asks.")] = "",
    action: Annotated[str, typer.Option(help="What for: train, raise_budget, export_model, ...")] = "train",
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")] = "",
    purpose: Annotated[str, typer.Option(help="Of the run.")] = "",
    environment: Annotated[str, typer.Option(help="Where it runs ($HUSHGRAD_ENVIRONMENT).")] = "",
    proof: Annotated[str, typer.Option(help="key, oidc or none.")] = "key",
    approvals: Annotated[int, typer.Option(help="How many others approve.")] = 0,
    plan: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the plan, e.g. noise_multiplier=1.1; repeat.")] = None,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Say whether a request would be allowed, and which rule decides. Writes nothing. Exit code 3 when denied."""
    decision = Ledger(ledger, create=False).test_access(
        action, actor=actor, dataset=dataset, purpose=purpose, environment=environment, proof="" if proof == "none" else proof,
        approvals=approvals, plan=_plan(plan or []), policy_json=None if file is None else policies.load(file),
    )  # fmt: skip
    if json:
        print_json({"allowed": decision.allowed, "policy": decision.policy, "reason": decision.reason, "rule": decision.rule, "word": decision.word})
    else:
        verdict = "allowed" if decision.allowed else "denied"
        why = f": {decision.reason}" if decision.reason else ""
        under = f", policy version {decision.policy}" if decision.policy else ", no policy"
        print_line(f"{verdict} by rule {decision.rule}{under}{why}", style="green" if decision.allowed else "red")
    if not decision.allowed:
        raise typer.Exit(DENIED)


@group.command()
def sign(file: PolicyFile, identity: Identity, json: Json = False) -> None:
    """Sign a policy as privacy officer; the signature is written beside it."""
    made = policies.sign(policies.load(file), SigningKey.load(identity))
    target = _beside(file)
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w", encoding="utf-8") as out:
            out.write(made.text + "\n")
    except OSError as error:
        raise IoError(f"[policy sign] Expected to write {target}, received: {error.strerror}.") from error
    print_json({"key": made.key, "path": str(target)}) if json else print_line(f"signed with key {made.key}: {target}")


@group.command()
def publish(file: PolicyFile, identity: Identity, ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Put a signed policy in force. From then on what no rule allows is denied."""
    text = policies.load(file)
    signature_file = _beside(file)
    if not signature_file.exists():
        raise InvalidArgument(f"[policy publish] Expected a signature at {signature_file}, received none. Sign it: hushgrad policy sign {file}.")
    signature = policies.Signature.from_text(read_small(signature_file))
    sequence = acting(ledger, identity).publish_policy(text, key=signature.key, signature=signature.signature)
    version = json_text.loads(text)["version"]
    print_json({"sequence": sequence, "version": version}) if json else print_line(f"policy version {version} is in force (entry {sequence})")


@group.command()
def show(
    version: Annotated[int, typer.Option(help="Default: the one in force.")] = 0,
    ledger: LedgerPath = DEFAULT,
    json: Json = False,
) -> None:
    """Print a policy of the ledger as JSON."""
    fields, sequence = _published(Ledger(ledger, create=False), version)
    document = json_text.loads(fields["policy"])
    print_json({"key": fields["key"], "policy": document, "published_by": fields["actor"], "sequence": sequence} if json else document)


@group.command()
def diff(file: PolicyFile, ledger: LedgerPath = DEFAULT, json: Json = False) -> None:
    """Show what a file would change in the policy in force."""
    fields, _ = _published(Ledger(ledger, create=False), 0)
    before, after = json_text.loads(fields["policy"]), json_text.loads(policies.load(file))
    lines = list(difflib.unified_diff(_lines(before), _lines(after), f"version {before['version']}", str(file), lineterm=""))
    if json:
        print_json({"diff": lines, "same": not lines})
        return
    for line in lines:
        print_line(line, style="green" if line.startswith("+") else "red" if line.startswith("-") else "")


def _lines(document: Any) -> list[str]:
    return json_text.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _published(ledger: Ledger, version: int) -> tuple[dict[str, str], int]:
    rows = [row for row in ledger.records("policy") if "signature" in row.fields and version in (0, int(row.fields["version"]))]
    if not rows:
        raise LedgerError("[policy] Expected a policy in the ledger, received none. Publish one: hushgrad policy publish FILE.")
    return rows[-1].fields, rows[-1].sequence


def _beside(file: Path) -> Path:
    return file.with_name(file.name + ".sig")


def _plan(pairs: list[str]) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise InvalidArgument(f"[policy test] Expected --plan KEY=VALUE, received {pair!r}.")
        try:
            plan[key] = float(value)
        except ValueError:
            plan[key] = value
    return plan
