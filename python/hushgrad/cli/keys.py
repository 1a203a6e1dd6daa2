"""`hushgrad keys`: make a keyring and the keys of datasets. No command shows key material."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hushgrad.cli.output import print_json, print_line, print_table
from hushgrad.keys import Keyring

DEFAULT = Path("hushgrad.keyring")
KeyringPath = Annotated[Path, typer.Option("--keyring", help="The keyring file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

group = typer.Typer(help="Make a keyring and the keys of datasets.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="keys")


@group.command()
def init(path: Annotated[Path, typer.Argument(help="Where to make it; nothing may stand there.")]) -> None:
    """Make a new, empty keyring, readable by its owner only."""
    print_line(f"made keyring {Keyring.create(path).path}. Keep a copy: without it, sealed files stay sealed.")


@group.command("list")
def list_keys(keyring: KeyringPath = DEFAULT, json: Json = False) -> None:
    """Show the keys: id, dataset, state and time of creation."""
    keys = Keyring(keyring).list()
    if json:
        rows = [{"id": k.id, "dataset": k.dataset, "state": k.state, "created": k.created.isoformat()} for k in keys]
        print_json({"keys": rows})
    elif keys:
        rows_shown = [(k.id, k.dataset, k.state, f"{k.created:%F %T}Z") for k in keys]
        print_table(("id", "dataset", "state", "created"), rows_shown)
    else:
        print_line("no keys yet; make one with: hushgrad keys create --dataset NAME")


@group.command()
def create(
    dataset: Annotated[str, typer.Option(help="Name of the dataset. Stored in clear: no patient data in it.")],
    keyring: KeyringPath = DEFAULT,
) -> None:
    """Add a key for a dataset; does nothing when it has one."""
    opened = Keyring(keyring)
    existed = opened.has_key(dataset=dataset)
    opened.create_key(dataset=dataset)
    print_line(f"dataset {dataset!r} {'already has a key' if existed else 'now has a key'} in {opened.path}")
