"""What the commands of `hushgrad keys` share: how a keyring is opened, whom it is opened for, what was approved."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, TypedDict, TypeVar

import typer

from hushgrad.approval import Approval, Operation
from hushgrad.cli.files import read_small
from hushgrad.errors import InvalidArgument, IoError, KeyError
from hushgrad.keys import Keyring, read_passphrase
from hushgrad.signing import SigningKey

__all__ = [
    "DEFAULT",
    "ApprovalFiles",
    "Authorization",
    "DatasetName",
    "IdentityFile",
    "KeyId",
    "KeyringPath",
    "PassphraseFile",
    "Reason",
    "RequestFile",
    "TenantName",
    "authorization",
    "day",
    "load_identity",
    "named",
    "new_passphrase",
    "open_keyring",
    "opened",
    "read_text",
]

DEFAULT = Path("hushgrad.keyring")
KeyringPath = Annotated[Path, typer.Option("--keyring", envvar="HUSHGRAD_KEYRING", help="The keyring file.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="File (mode 0600) whose first line is the passphrase; asked for in a terminal otherwise."
    ),
]
IdentityFile = Annotated[
    Path | None,
    typer.Option("--identity", help="File of the signing key in whose name this is done: `hushgrad keys identity new`."),
]
DatasetName = Annotated[str, typer.Option("--dataset", help="All keys of this dataset.")]
TenantName = Annotated[str, typer.Option("--tenant", help="All keys of this tenant.")]
KeyId = Annotated[str, typer.Option("--key", help="The key of this id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why. Goes into the log: no patient data in it.")]
RequestFile = Annotated[
    Path | None, typer.Option("--request", help="The request that was approved: `hushgrad keys request`.")
]
ApprovalFiles = Annotated[
    list[Path] | None, typer.Option("--approval", help="An approval of the request; give it once for each approver.")
]

_Opened = TypeVar("_Opened")


class Authorization(TypedDict):
    """The arguments of keyring methods that need approvals."""

    operation: Operation | None
    approvals: Sequence[Approval]


def authorization(request: Path | None, approvals: Sequence[Path] | None) -> Authorization:
    """Read what was approved."""
    return {
        "operation": Operation.load(request) if request else None,
        "approvals": [Approval.load(path) for path in approvals or ()],
    }


def opened(open_with: Callable[[str | None], _Opened], passphrase_file: Path | None, what: str) -> _Opened:
    """Open with the passphrase of a file, without one, or, in a terminal, with one that is asked for."""
    if passphrase_file is not None:
        return open_with(read_passphrase(passphrase_file))
    try:
        return open_with(None)
    except KeyError as error:
        if "passphrase" not in str(error) or not sys.stdin.isatty():
            raise
    return open_with(getpass.getpass(f"Passphrase of {what}: "))


def load_identity(path: Path | None) -> SigningKey | None:
    """The signing key of whoever acts; its passphrase is asked for in a terminal."""
    if path is None:
        return None
    return opened(lambda passphrase: SigningKey.load(path, passphrase), None, str(path))


def open_keyring(path: Path, passphrase_file: Path | None = None, identity: Path | None = None) -> Keyring:
    """Open a keyring in the name of an identity."""
    key = load_identity(identity)
    return opened(lambda passphrase: Keyring(path, passphrase=passphrase, identity=key), passphrase_file, str(path))


def new_passphrase(passphrase_file: Path | None, wanted: bool, what: str) -> str | None:
    """A passphrase for something new: of a file, or asked for twice."""
    if passphrase_file is not None:
        return read_passphrase(passphrase_file)
    if not wanted:
        return None
    first = getpass.getpass(f"New passphrase of {what}: ")
    if first != getpass.getpass("Again: "):
        raise InvalidArgument("[keys] Expected the same passphrase twice, received two. Try again.")
    return first


def day(text: str) -> datetime | None:
    """``2027-01-31`` or ``2027-01-31T12:00:00Z``; nothing for nothing. In UTC where no zone is given."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidArgument("[keys] Expected a date such as 2027-01-31, received another text.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def named(dataset: str, tenant: str, key: str) -> str:
    """What a command is about, in words."""
    return f"dataset {dataset!r}" if dataset else f"tenant {tenant!r}" if tenant else f"key {key}"


def read_text(path: Path) -> str:
    """Read a text that people pass around."""
    try:
        return read_small(path)
    except UnicodeDecodeError:
        raise InvalidArgument(f"[keys] Expected text in {path}, received bytes. Check the path.") from None
    except OSError as error:
        raise IoError(f"[keys] Expected a readable file at {path}, received: {error.strerror}.") from error
