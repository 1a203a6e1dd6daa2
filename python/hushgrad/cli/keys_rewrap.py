"""`hushgrad keys rewrap`: move sealed files to the present keys of their datasets, without touching their data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hushgrad.cli.keys_options import DEFAULT, IdentityFile, KeyringPath, PassphraseFile, open_keyring
from hushgrad.cli.output import Json, print_json, print_line, print_warning, progress
from hushgrad.errors import HushgradError

__all__ = ["register"]

_MAGIC = b"HGSEALED"


def register(group: typer.Typer) -> None:
    """Add the command to `hushgrad keys`."""
    group.command()(rewrap)


def rewrap(
    paths: Annotated[list[Path], typer.Argument(help="Sealed files, and folders that are searched for them.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Only files of this dataset.")] = "",
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    json: Json = False,
) -> None:
    """Wrap the keys of sealed files anew, under the present key of each file's dataset. The data is not rewritten.

    Files that are under it already are left alone, so a run that was stopped is resumed by running it again. What cannot be
    re-wrapped is named, the others are done, and the exit code is 1.
    """
    from hushgrad import sealed

    target = open_keyring(keyring, passphrase_file, identity)
    files = list(_sealed_files(paths))
    changed, current, failed = 0, 0, {}
    for path in progress(files, "re-wrapping", len(files)):
        try:
            if dataset and sealed.inspect(path).core["dataset"] != dataset:
                continue
            if sealed.rewrap(path, keyring=target).changed:
                changed += 1
            else:
                current += 1
        except HushgradError as error:
            failed[str(path)] = str(error)
    if json:
        print_json({"rewrapped": changed, "current": current, "failed": failed})
    else:
        print_line(f"re-wrapped {changed} files; {current} were under the present key already")
        for path_text, why in failed.items():
            print_warning(f"{path_text}: {why}")
    if failed:
        raise typer.Exit(1)


def _sealed_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for found in sorted(path.rglob("*")):
            if found.is_file() and not found.is_symlink() and _is_sealed(found):
                yield found


def _is_sealed(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
