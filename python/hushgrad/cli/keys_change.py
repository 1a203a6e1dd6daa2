"""Commands of `hushgrad keys` that change the state of keys, and those that ask for and give approvals."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from hushgrad.approval import Operation, approve
from hushgrad.cli.keys_options import (
    DEFAULT,
    ApprovalFiles,
    DatasetName,
    IdentityFile,
    KeyId,
    KeyringPath,
    PassphraseFile,
    Reason,
    RequestFile,
    TenantName,
    authorization,
    load_identity,
    named,
    new_passphrase,
    open_keyring,
    opened,
    read_text,
)
from hushgrad.cli.output import Json, print_json, print_line, print_result
from hushgrad.errors import InvalidArgument
from hushgrad.keys import Keyring

__all__ = ["register"]


def register(group: typer.Typer) -> None:
    """Add the commands to `hushgrad keys`."""
    for command in (suspend, resume, revoke, reinstate, protect, request):
        group.command()(command)
    group.command("break-glass")(break_glass)
    group.command("accept-restored")(accept_restored)
    group.command("approve")(give_approval)


def suspend(
    reason: Reason,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Stop keys from sealing and opening, until they are resumed. Running processes follow at their next use of a key."""
    target = open_keyring(keyring, passphrase_file, identity)
    target.suspend(dataset=dataset, tenant=tenant, key_id=key, reason=reason)
    _print_state(json, target, named(dataset, tenant, key), "suspended")


def resume(
    reason: Reason,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """End a suspension."""
    target = open_keyring(keyring, passphrase_file, identity)
    approved = authorization(request, approval)
    target.resume(dataset=dataset, tenant=tenant, key_id=key, reason=reason, **approved)
    _print_state(json, target, named(dataset, tenant, key), "resumed")


def revoke(
    reason: Reason,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Mark keys as compromised: they neither seal nor open again. Running processes follow at their next use of a key."""
    target = open_keyring(keyring, passphrase_file, identity)
    target.revoke(dataset=dataset, tenant=tenant, key_id=key, reason=reason)
    _print_state(json, target, named(dataset, tenant, key), "revoked")


def reinstate(
    reason: Reason,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Undo a revocation: the keys open again, and seal nothing new."""
    target = open_keyring(keyring, passphrase_file, identity)
    approved = authorization(request, approval)
    target.reinstate(dataset=dataset, tenant=tenant, key_id=key, reason=reason, **approved)
    _print_state(json, target, named(dataset, tenant, key), "reinstated")


def break_glass(
    reason: Reason,
    minutes: Annotated[int, typer.Option(help="For how long, 1 to 60.")],
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """In an emergency: let suspended or revoked keys open files for some minutes. Logged before; rotation is due after."""
    target = open_keyring(keyring, passphrase_file, identity)
    approved = authorization(request, approval)
    target.break_glass(dataset=dataset, tenant=tenant, key_id=key, reason=reason, minutes=minutes, **approved)
    _print_state(json, target, named(dataset, tenant, key), f"open for {minutes} minutes; rotate afterwards")


def accept_restored(
    reason: Reason,
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Take an older keyring after a restore that is meant. Keys revoked since its backup must be revoked again."""
    approved = authorization(request, approval)
    key = load_identity(identity)
    target = opened(
        lambda passphrase: Keyring.accept_restored(
            keyring, reason=reason, passphrase=passphrase, identity=key, **approved
        ),
        passphrase_file,
        str(keyring),
    )
    _print_state(json, target, f"keyring {target.path}", "accepted as restored; revoke again what was revoked since")


def protect(
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for the new passphrase.")] = False,
    new_passphrase_file: Annotated[
        Path | None, typer.Option("--new-passphrase-file", help="File (mode 0600) with the new passphrase.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Bind it to this user on this machine.")] = False,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Put the keyring under another passphrase, or none. Copies that were made before keep the old one."""
    target = open_keyring(keyring, passphrase_file, identity)
    words = new_passphrase(new_passphrase_file, passphrase, str(keyring))
    target.protect(passphrase=words, machine=machine)
    _print_state(json, target, f"keyring {target.path}", "protected anew")


def request(
    action: Annotated[str, typer.Argument(help="resume, reinstate, shred, break-glass, accept-restored, add-identity or remove-identity.")],
    reason: Reason,
    identity: IdentityFile,
    output: Annotated[Path, typer.Option("--output", help="Where to write the request; mail it to the approvers.")],
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    minutes: Annotated[int, typer.Option(help="For break-glass.")] = 0,
    person: Annotated[str, typer.Option("--person", help="For remove-identity: the id of the key.")] = "",
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="For add-identity: the public key of the new person.")
    ] = None,
    name: Annotated[str, typer.Option(help="For add-identity.")] = "",
    role: Annotated[str, typer.Option(help="For add-identity: custodian or approver.")] = "",
    hours: Annotated[int, typer.Option(min=1, max=720, help="For how long it can be approved and carried out.")] = 24,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Ask for an operation that needs approvals. Each approver answers with `hushgrad keys approve`."""
    from hushgrad.signing import PublicKey

    if public_key is not None:
        person = PublicKey.from_pem(read_text(public_key)).id
    words = {
        "dataset": dataset,
        "tenant": tenant,
        "key": key,
        "minutes": str(minutes) if minutes else "",
        "identity": person,
        "name": name,
        "role": role,
    }
    scope = {name: value for name, value in words.items() if value}
    target = open_keyring(keyring, passphrase_file, identity)
    operation = target.request(action, reason=reason, lifetime=timedelta(hours=hours), **scope)
    operation.save(output)
    facts = {"request": str(output), "nonce": operation.nonce, "expires": operation.expires.isoformat()}
    print_result(json, facts, f"wrote {output}; it can be approved until {operation.expires:%F %T}Z")


def give_approval(
    request: Annotated[Path, typer.Argument(help="The request to approve.")],
    identity: IdentityFile,
    output: Annotated[Path, typer.Option("--output", help="Where to write the approval; send it back.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Read a request and sign it. Your signature stands for exactly what is shown, until it expires."""
    operation = Operation.load(request)
    signer = load_identity(identity)
    if signer is None:
        raise InvalidArgument("[keys] Expected an identity that approves, received none. Give --identity.")
    if not json:
        _show(operation)
    if not yes and not typer.confirm("Approve this?", err=True):
        raise InvalidArgument("[keys] Expected a confirmation, received none. Nothing was signed.")
    approval = approve(operation, signer)
    approval.save(output)
    print_result(json, {"approval": str(output), "approver": approval.approver}, f"approved by {approval.approver}: {output}")


def _show(operation: Operation) -> None:
    print_line(f"action     {operation.action}")
    for name, value in operation.scope.items():
        print_line(f"{name:10} {value}")
    print_line(f"reason     {operation.reason}")
    print_line(f"asked by   {operation.requester}")
    print_line(f"expires    {operation.expires:%F %T}Z")


def _print_state(json: bool, target: Keyring, named: str, state: str) -> None:
    if json:
        print_json({"target": named, "state": state, "generation": target.generation})
    else:
        print_line(f"{named}: {state}")
