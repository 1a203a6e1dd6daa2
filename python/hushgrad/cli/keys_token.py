"""`hushgrad keys token`: the keys of datasets on a PKCS#11 token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hushgrad.cli.output import Json, print_json, print_line, print_result, print_table
from hushgrad.errors import InvalidArgument
from hushgrad.keys import Pkcs11

Module = Annotated[Path, typer.Option("--module", envvar="HUSHGRAD_PKCS11_MODULE", help="The vendor's PKCS#11 library.")]
TokenLabel = Annotated[str, typer.Option("--token", help="The label of the token.")]
PinFile = Annotated[Path, typer.Option("--pin-file", help="File (mode 0600) whose first line is the user's PIN.")]
DatasetName = Annotated[str, typer.Option("--dataset", help="Name of the dataset.")]

group = typer.Typer(help="Make, change and destroy keys on a PKCS#11 token.")


def register(keys: typer.Typer) -> None:
    """Add the group to `hushgrad keys`."""
    keys.add_typer(group, name="token")


@group.command("list")
def list_keys(module: Module, token: TokenLabel, pin_file: PinFile, json: Json = False) -> None:
    """Show the keys of hushgrad on the token."""
    keys = Pkcs11(module, token, pin_file=pin_file).list()
    if json:
        print_json(
            {
                "keys": [
                    {"id": k.id, "tenant": k.tenant, "dataset": k.dataset, "state": k.state, "created": k.created.isoformat()}
                    for k in keys
                ]
            }
        )
    elif keys:
        print_table(
            ("id", "tenant", "dataset", "state", "created"),
            [(k.id, k.tenant, k.dataset, k.state, f"{k.created:%F %T}Z") for k in keys],
        )
    else:
        print_line("no keys yet; make one with: hushgrad keys token create --dataset NAME")


@group.command()
def create(
    module: Module,
    token: TokenLabel,
    pin_file: PinFile,
    dataset: DatasetName,
    tenant: Annotated[str, typer.Option(help="Whose dataset it is.")] = "default",
    json: Json = False,
) -> None:
    """Make a key for a dataset on the token; does nothing when it has an active one."""
    Pkcs11(module, token, pin_file=pin_file).create_key(dataset=dataset, tenant=tenant)
    print_result(json, {"dataset": dataset, "token": token}, f"dataset {dataset!r} has a key on token {token!r}")


@group.command()
def rotate(module: Module, token: TokenLabel, pin_file: PinFile, dataset: DatasetName, json: Json = False) -> None:
    """Give a dataset a new key on the token. Files sealed earlier still open."""
    Pkcs11(module, token, pin_file=pin_file).rotate_key(dataset=dataset)
    print_result(json, {"dataset": dataset, "state": "rotated"}, f"dataset {dataset!r} has a new key")


@group.command()
def suspend(module: Module, token: TokenLabel, pin_file: PinFile, dataset: DatasetName, json: Json = False) -> None:
    """Stop the keys of a dataset from sealing and opening, until they are resumed."""
    Pkcs11(module, token, pin_file=pin_file).suspend(dataset=dataset)
    print_result(json, {"dataset": dataset, "state": "suspended"}, f"dataset {dataset!r}: suspended")


@group.command()
def resume(module: Module, token: TokenLabel, pin_file: PinFile, dataset: DatasetName, json: Json = False) -> None:
    """End a suspension."""
    Pkcs11(module, token, pin_file=pin_file).resume(dataset=dataset)
    print_result(json, {"dataset": dataset, "state": "resumed"}, f"dataset {dataset!r}: resumed")


@group.command()
def revoke(module: Module, token: TokenLabel, pin_file: PinFile, dataset: DatasetName, json: Json = False) -> None:
    """Mark the keys of a dataset as compromised: they neither seal nor open again."""
    Pkcs11(module, token, pin_file=pin_file).revoke(dataset=dataset)
    print_result(json, {"dataset": dataset, "state": "revoked"}, f"dataset {dataset!r}: revoked")


@group.command()
def destroy(
    module: Module,
    token: TokenLabel,
    pin_file: PinFile,
    dataset: DatasetName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. What is sealed under the keys is lost for good.")] = False,
    json: Json = False,
) -> None:
    """Destroy the keys of a dataset on the token, for good."""
    if not yes and not typer.confirm(f"Destroy the keys of dataset {dataset!r} for good?", err=True):
        raise InvalidArgument("[keys] Expected a confirmation, received none. Nothing was destroyed.")
    Pkcs11(module, token, pin_file=pin_file).destroy(dataset=dataset)
    print_result(json, {"dataset": dataset, "state": "destroyed"}, f"destroyed the keys of dataset {dataset!r}")
