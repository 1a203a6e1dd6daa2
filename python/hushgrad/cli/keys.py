"""`hushgrad keys`: make, change, approve and destroy the keys of datasets. No command shows key material."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hushgrad.cli import keys_change, keys_identity, keys_options, keys_rewrap, keys_shred, keys_token
from hushgrad.cli.keys_options import DEFAULT, IdentityFile, KeyringPath, PassphraseFile, day, open_keyring
from hushgrad.cli.output import Json, print_json, print_line, print_result, print_table, print_warning
from hushgrad.keys import Keyring
from hushgrad.new_file import write_new

group = typer.Typer(help="Make, change, approve and destroy the keys of datasets.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    keys_change.register(group)
    keys_identity.register(group)
    keys_rewrap.register(group)
    keys_shred.register(group)
    keys_token.register(group)
    app.add_typer(group, name="keys")


@group.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to make it; nothing may stand there.")],
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase that protects it.")] = False,
    passphrase_file: PassphraseFile = None,
    machine: Annotated[bool, typer.Option("--machine", help="Bind it to this user on this machine.")] = False,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Make a new, empty keyring, readable by its owner only, and its log beside it."""
    words = keys_options.new_passphrase(passphrase_file, passphrase, str(path))
    key = keys_options.load_identity(identity)
    keyring = Keyring.create(path, passphrase=words, identity=key, machine=machine)
    facts = {"keyring": keyring.path, "log": keyring.log_path, "id": keyring.describe()["id"]}
    print_result(json, facts, f"made keyring {keyring.path}. Keep a copy: without it, sealed files stay sealed.")


@group.command("list")
def list_keys(keyring: KeyringPath = DEFAULT, passphrase_file: PassphraseFile = None, json: Json = False) -> None:
    """Show the keys: id, tenant, dataset, state, dates, uses and the quorum that guards them."""
    described = open_keyring(keyring, passphrase_file).describe()
    keys = [_facts(key) for key in described["keys"] if key["dataset"]]
    if json:
        print_json({"keyring": described["id"], "generation": described["generation"], "keys": keys})
    elif keys:
        columns = ("id", "tenant", "dataset", "state", "created", "expires", "uses", "quorum", "due")
        print_table(columns, [_row(key) for key in keys])
    else:
        print_line("no keys yet; make one with: hushgrad keys create --dataset NAME")


def _facts(key: dict[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in key.items() if name != "changes"}
    return {**facts, "created": key["changes"][0]["time"].replace("Z", "+00:00"), "changes": key["changes"]}


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    uses = f"{key['uses']} of {key['usage_limit']}" if key["usage_limit"] else ""
    due = "rotation" if key["rotation_due"] else ""
    created = key["changes"][0]["time"]
    quorum = str(key["quorum"]) if key["quorum"] else ""
    return key["id"], key["tenant"], key["dataset"], key["state"], created, key["expires"], uses, quorum, due


@group.command()
def create(
    dataset: Annotated[str, typer.Option(help="Name of the dataset. Stored in clear: no patient data in it.")],
    tenant: Annotated[str, typer.Option(help="Whose dataset it is.")] = "default",
    activates: Annotated[str, typer.Option(help="Day from which it seals and opens.")] = "",
    expires: Annotated[str, typer.Option(help="Day from which it seals nothing new.")] = "",
    usage_limit: Annotated[int, typer.Option(min=0, help="How many files it seals at most; 0: no limit.")] = 0,
    quorum: Annotated[
        int, typer.Option(min=0, help="Approvals that resuming, reinstating, shredding and breaking glass need. Fixed.")
    ] = 0,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Add a key for a dataset; does nothing when it has one."""
    target = open_keyring(keyring, passphrase_file, identity)
    existed = target.has_key(dataset=dataset)
    target.create_key(
        dataset=dataset,
        tenant=tenant,
        activates=day(activates),
        expires=day(expires),
        usage_limit=usage_limit,
        quorum=quorum,
    )
    text = f"dataset {dataset!r} {'already has a key' if existed else 'now has a key'} in {target.path}"
    print_result(json, {"dataset": dataset, "created": not existed, "keyring": target.path}, text)


@group.command()
def rotate(
    dataset: Annotated[str, typer.Option(help="Whose key is to be followed by a new one.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the log.")] = "",
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Give a dataset a new key. Files sealed earlier still open; `rewrap` moves them to the new key."""
    target = open_keyring(keyring, passphrase_file, identity)
    target.rotate_key(dataset=dataset, reason=reason)
    (key,) = [key for key in target.list() if key.dataset == dataset and key.state == "active"]
    print_result(json, {"dataset": dataset, "key": key.id}, f"dataset {dataset!r} now has key {key.id}")


@group.command()
def verify(keyring: KeyringPath = DEFAULT, passphrase_file: PassphraseFile = None, json: Json = False) -> None:
    """Verify keys, log, every signature and every link; say what is due."""
    target = open_keyring(keyring, passphrase_file)
    entries = target.verify()
    described = target.describe()
    due = sorted({key["dataset"] for key in described["keys"] if key["rotation_due"]})
    unfinished = len(entries) - int(described["log"]["sequence"])
    if json:
        head = {"sequence": entries[-1].sequence, "hash": entries[-1].hash} if entries else None
        print_json(
            {
                "keyring": described["id"],
                "generation": target.generation,
                "log_entries": len(entries),
                "log_head": head,
                "unfinished": unfinished,
                "rotation_due": due,
            }
        )
        return
    print_line(f"keyring {target.path}, generation {target.generation}: {len(entries)} log entries, all verified")
    if unfinished:
        print_warning(f"{unfinished} entries announce changes that were not made: a process was stopped between the two")
    for dataset in due:
        print_warning(f"dataset {dataset!r}: glass was broken; run `hushgrad keys rotate --dataset {dataset}`")


@group.command("log")
def show_log(keyring: KeyringPath = DEFAULT, passphrase_file: PassphraseFile = None, json: Json = False) -> None:
    """Show the verified entries of the key log."""
    entries = open_keyring(keyring, passphrase_file).verify()
    if json:
        rows = [{**vars(entry), "time": entry.time.isoformat(), "details": dict(entry.details)} for entry in entries]
        print_json({"entries": rows})
        return
    rows_shown = [
        (
            str(entry.sequence),
            f"{entry.time:%F %T}Z",
            entry.action,
            entry.actor,
            ", ".join(f"{name}={value}" for name, value in entry.details.items()),
        )
        for entry in entries
    ]
    print_table(("entry", "time", "action", "by", "details"), rows_shown)


@group.command("export-public")
def export_public(
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    output: Annotated[Path | None, typer.Option(help="Where to write it; nothing may stand there.")] = None,
    json: Json = False,
) -> None:
    """Export the public key that verifies the key log and certificates of destruction."""
    key = open_keyring(keyring, passphrase_file).public_key
    if output is not None:
        write_new(output, key.pem, "keys")
    if json:
        print_json({"id": key.id, "algorithm": key.algorithm, "public_key": key.pem})
    else:
        print_line(f"wrote public key {key.id} to {output}" if output else key.pem.strip())
