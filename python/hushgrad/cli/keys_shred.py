"""Commands of `hushgrad keys` about the end of keys: destroying them, and the certificates that tell of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

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
    named,
    open_keyring,
    read_text,
)
from hushgrad.cli.output import Json, print_result
from hushgrad.errors import InvalidArgument, IoError
from hushgrad.keys import verify_certificate
from hushgrad.new_file import new_file
from hushgrad.signing import PublicKey

__all__ = ["register"]

Output = Annotated[Path, typer.Option("--output", help="Where to write the certificate of destruction; nothing may stand there.")]


def register(group: typer.Typer) -> None:
    """Add the commands to `hushgrad keys`."""
    for command in (shred, reissue, certificate):
        group.command()(command)


def shred(
    reason: Reason,
    output: Output,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", help="A file or folder sealed under these keys, to be listed in the certificate."),
    ] = None,
    request: RequestFile = None,
    approval: ApprovalFiles = None,
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    identity: IdentityFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. What is sealed under the keys is lost for good.")] = False,
    json: Json = False,
) -> None:
    """Destroy keys for good, and write a signed certificate. What was sealed under them can never be opened again.

    Where this is stopped after the keys are gone and before the certificate is written, `reissue` writes it.
    """
    target = open_keyring(keyring, passphrase_file, identity)
    what = named(dataset, tenant, key)
    if not yes and not typer.confirm(f"Destroy the keys of {what} for good?", err=True):
        raise InvalidArgument("[keys] Expected a confirmation, received none. Nothing was destroyed.")
    approved = authorization(request, approval)
    names = [str(path) for path in _files(files or [])]
    with _certificate(output) as write:
        write(target.shred(dataset=dataset, tenant=tenant, key_id=key, reason=reason, files=names, **approved))
    facts = {"destroyed": what, "certificate": str(output), "files": len(names), "generation": target.generation}
    print_result(json, facts, f"destroyed the keys of {what}; certificate in {output}")


def reissue(
    output: Output,
    dataset: DatasetName = "",
    tenant: TenantName = "",
    key: KeyId = "",
    keyring: KeyringPath = DEFAULT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Write the certificate of a destruction anew, where the one that `shred` wrote was lost."""
    target = open_keyring(keyring, passphrase_file)
    with _certificate(output) as write:
        write(target.certificate(dataset=dataset, tenant=tenant, key_id=key))
    print_result(json, {"certificate": str(output)}, f"certificate in {output}")


def certificate(
    path: Annotated[Path, typer.Argument(help="A certificate of destruction.")],
    public_key: Annotated[Path, typer.Option("--public-key", help="What `hushgrad keys export-public` wrote.")],
    json: Json = False,
) -> None:
    """Check a certificate of destruction: whether it is unaltered, and of the keyring with this public key."""
    signer = PublicKey.from_pem(read_text(public_key))
    text = read_text(path)
    if not verify_certificate(text, signer):
        raise InvalidArgument(
            f"[certificate] Expected a certificate signed by {signer.id}, received another or an altered one. "
            "Do not rely on it."
        )
    print_result(json, {"valid": True, "signer": signer.id}, f"{path} is a certificate signed by {signer.id}, unaltered")


@contextmanager
def _certificate(path: Path) -> Iterator[Callable[[str], None]]:
    """What cannot be written after all is printed on standard error."""
    with new_file(path, "keys") as write:

        def write_or_print(text: str) -> None:
            try:
                write(text + "\n")
            except IoError as error:
                print(text, file=sys.stderr)
                raise IoError(f"{error} The certificate is above; `hushgrad keys reissue` writes it again.") from error

        yield write_or_print


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise IoError(f"[keys] Expected a file or folder at {path}, received none. Nothing was destroyed.")
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found
