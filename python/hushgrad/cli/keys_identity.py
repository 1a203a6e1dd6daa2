"""`hushgrad keys identity`: the signing keys of people, and who is registered in a keyring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hushgrad.cli.keys_options import (
    DEFAULT,
    ApprovalFiles,
    IdentityFile,
    KeyringPath,
    PassphraseFile,
    Reason,
    RequestFile,
    authorization,
    new_passphrase,
    open_keyring,
    read_text,
)
from hushgrad.cli.output import Json, print_json, print_line, print_result, print_table
from hushgrad.errors import InvalidArgument
from hushgrad.new_file import write_new
from hushgrad.signing import PublicKey, SigningKey

group = typer.Typer(help="Make the signing key of a person; register people in a keyring.")


def register(keys: typer.Typer) -> None:
    """Add the group to `hushgrad keys`."""
    keys.add_typer(group, name="identity")


@group.command()
def new(
    path: Annotated[Path, typer.Argument(help="Where to make it; the public key goes to PATH.pub.")],
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase that protects it.")] = False,
    passphrase_file: PassphraseFile = None,
    algorithm: Annotated[str, typer.Option(help="ecdsa-p384-sha384, or ed25519 outside FIPS mode.")] = "ecdsa-p384-sha384",
    json: Json = False,
) -> None:
    """Make the signing key of a person or a run."""
    if algorithm not in ("ecdsa-p384-sha384", "ed25519"):
        raise InvalidArgument("[keys] Expected ecdsa-p384-sha384 or ed25519, received another algorithm.")
    key = SigningKey.generate("ed25519" if algorithm == "ed25519" else "ecdsa-p384-sha384")
    key.save(path, new_passphrase(passphrase_file, passphrase, str(path)))
    public = path.with_name(path.name + ".pub")
    write_new(public, key.public_key.pem, "keys")
    facts = {"id": key.id, "path": str(path), "public_key": str(public), "algorithm": algorithm}
    print_result(json, facts, f"made identity {key.id} in {path}; give others {public}")


@group.command()
def add(
    public_key: Annotated[Path, typer.Argument(help="The public key of the person.")],
    name: Annotated[str, typer.Option(help="The person's name or role account.")],
    role: Annotated[str, typer.Option(help="custodian: changes keys. approver: approves. Nobody is both.")],
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Register a person in a keyring. As soon as there is a custodian, nobody else changes keys."""
    if role not in ("custodian", "approver"):
        raise InvalidArgument("[keys] Expected the role custodian or approver, received another.")
    key = PublicKey.from_pem(read_text(public_key))
    target = open_keyring(keyring, passphrase_file, identity)
    approved = authorization(request, approval)
    target.add_identity(name, "approver" if role == "approver" else "custodian", key, **approved)
    print_result(json, {"id": key.id, "name": name, "role": role}, f"{name} ({key.id}) is {role} of {target.path}")


@group.command()
def remove(
    id: Annotated[str, typer.Argument(help="The id of the person's key.")],
    reason: Reason,
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Remove a person from a keyring: approvals of theirs that wait count no more."""
    target = open_keyring(keyring, passphrase_file, identity)
    target.remove_identity(id, reason=reason, **authorization(request, approval))
    print_result(json, {"id": id, "removed": True}, f"{id} was removed from {target.path}")


@group.command("list")
def list_identities(keyring: KeyringPath = DEFAULT, passphrase_file: PassphraseFile = None, json: Json = False) -> None:
    """Show who is or was registered."""
    people = open_keyring(keyring, passphrase_file).identities()
    if json:
        rows = [
            {
                "id": person.id,
                "name": person.name,
                "role": person.role,
                "added": person.added.isoformat(),
                "removed": person.removed.isoformat() if person.removed else None,
            }
            for person in people
        ]
        print_json({"identities": rows})
    elif people:
        shown = [(p.id, p.name, p.role, f"{p.removed:%F}" if p.removed else "") for p in people]
        print_table(("id", "name", "role", "removed"), shown)
    else:
        print_line("nobody is registered: whoever holds the keyring changes its keys")
