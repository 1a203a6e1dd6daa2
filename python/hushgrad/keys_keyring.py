"""A keyring: one local file with the keys of datasets. For people: ``docs/keys.md``; the file: ``docs/formats/keyring.md``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import hushgrad._core as _core
from hushgrad.approval import Approval, Operation
from hushgrad.errors import InvalidArgument
from hushgrad.keys_provider import Key, key_of, time_of
from hushgrad.signing import PublicKey, SigningKey, passphrase_bytes

__all__ = ["Identity", "Keyring", "LogEntry"]

Role = Literal["custodian", "approver"]

_Keys = list[Key]  # inside Keyring, `list` is the method
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Identity:
    """A person who is registered in a keyring. A custodian changes keys, an approver approves; nobody is both."""

    id: str
    name: str
    role: Role
    public_key: PublicKey
    added: datetime
    removed: datetime | None


@dataclass(frozen=True)
class LogEntry:
    """One verified entry of a key log."""

    sequence: int
    hash: str
    time: datetime
    generation: int
    actor: str
    action: str
    details: Mapping[str, str]


class Keyring:
    """A keyring file of mode 0600: a hierarchy of AES-256 keys, root over tenants over datasets over files.

    The file is replaced atomically and durably, each change has its signed entry in the key log ``<path>.log`` first, and
    a keyring that is older than what was seen is refused. A change by another process counts from the next use of a key
    on: revoking needs no restart. Losing the keyring loses every file sealed under it.

    Args:
        path: an existing keyring; :meth:`create` makes a new one.
        passphrase: of a keyring that has one.
        identity: in whose name changes are made; needed as soon as a custodian is registered.

    Raises:
        hushgrad.errors.KeyError: the file is missing, refused, altered, older than was seen, or opens with another
            passphrase; or a key is unknown or may not be used.
        hushgrad.errors.Denied: approvals are missing or do not fit, or the identity may not do this. It is logged.
        hushgrad.errors.IoError: the operating system refused; nothing was changed.
    """

    def __init__(self, path: _Path, *, passphrase: str | None = None, identity: SigningKey | None = None) -> None:
        self._core = _core.Keyring(os.fspath(path), passphrase_bytes(passphrase), identity._core if identity else None)

    @classmethod
    def create(
        cls,
        path: _Path,
        *,
        passphrase: str | None = None,
        identity: SigningKey | None = None,
        machine: bool = False,
    ) -> Keyring:
        """Make an empty keyring and its log. ``IoError`` when anything, even a dangling symlink, stands there.

        Args:
            passphrase: 1 to 1024 bytes; the root key is encrypted under it (Argon2id, in FIPS mode PBKDF2). Without one
                the file protection of the operating system is all there is.
            machine: bind it to this user on this machine: a copy of the file opens nowhere else.
        """
        keyring = cls.__new__(cls)
        identity_key = identity._core if identity else None
        keyring._core = _core.Keyring.create(os.fspath(path), passphrase_bytes(passphrase), identity_key, machine)
        return keyring

    @classmethod
    def accept_restored(
        cls,
        path: _Path,
        *,
        reason: str,
        passphrase: str | None = None,
        identity: SigningKey | None = None,
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> Keyring:
        """Take an older keyring after a restore from a backup that is meant. Logged; needs the largest quorum of all keys.

        Keys that were revoked since the backup was made are as they were then: revoke them again.
        """
        identity_key = identity._core if identity else None
        _core.Keyring.accept_restored(
            os.fspath(path), passphrase_bytes(passphrase), identity_key, reason, *_authorization(operation, approvals)
        )
        return cls(path, passphrase=passphrase, identity=identity)

    @property
    def path(self) -> str:
        """Where the file lies, as it was given."""
        return self._core.path

    @property
    def log_path(self) -> str:
        """Where the key log lies."""
        return self._core.log_path

    @property
    def generation(self) -> int:
        """Goes up with every change."""
        return self._core.generation()

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies the log and certificates of destruction."""
        return PublicKey._of(self._core.public_key)

    def create_key(
        self,
        *,
        dataset: str,
        tenant: str = "default",
        activates: datetime | None = None,
        expires: datetime | None = None,
        usage_limit: int = 0,
        quorum: int = 0,
    ) -> None:
        """Add a random 256-bit key for ``dataset``; does nothing when the dataset has an active key.

        Names are stored in clear here and in sealed files: 1 to 256 bytes of UTF-8 without control characters and
        without a space at either end (``InvalidArgument`` otherwise), and no patient data in them.

        Args:
            activates: until then the key is pre-active.
            expires: from then on it seals nothing new.
            usage_limit: how many files it seals at most; each is counted on disk before it is sealed. 0: no limit.
            quorum: how many approvers must sign before :meth:`resume`, :meth:`reinstate`, :meth:`shred` or
                :meth:`break_glass`. Fixed for the life of the key and of those it is rotated to.
        """
        self._core.create_key(dataset, tenant, _seconds(activates), _seconds(expires), usage_limit, quorum)

    def rotate_key(self, *, dataset: str, reason: str = "") -> None:
        """Deactivate the active key of ``dataset`` and add a new one; files sealed earlier still open.

        Raises ``hushgrad.errors.KeyError`` when the dataset has no key or a suspended one.
        """
        self._core.rotate_key(dataset, reason)

    def has_key(self, *, dataset: str) -> bool:
        """Whether ``dataset`` has an active key."""
        return self._core.has_key(dataset)

    def list(self) -> _Keys:
        """All keys of datasets in order of creation."""
        return [key_of(row) for row in self._core.list()]

    def suspend(self, *, dataset: str = "", tenant: str = "", key_id: str = "", reason: str) -> None:
        """The keys neither seal nor open until :meth:`resume`. Name one of dataset, tenant, key."""
        self._core.suspend(dataset, tenant, key_id, reason)

    def resume(
        self,
        *,
        dataset: str = "",
        tenant: str = "",
        key_id: str = "",
        reason: str,
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> None:
        """End a suspension. Keys are what they were before it."""
        self._core.resume(dataset, tenant, key_id, reason, *_authorization(operation, approvals))

    def revoke(self, *, dataset: str = "", tenant: str = "", key_id: str = "", reason: str) -> None:
        """The keys are compromised: they neither seal nor open again. Needs no approval, for it must be quick."""
        self._core.revoke(dataset, tenant, key_id, reason)

    def reinstate(
        self,
        *,
        dataset: str = "",
        tenant: str = "",
        key_id: str = "",
        reason: str,
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> None:
        """Undo a revocation: the keys open again, and seal nothing new."""
        self._core.reinstate(dataset, tenant, key_id, reason, *_authorization(operation, approvals))

    def shred(
        self,
        *,
        dataset: str = "",
        tenant: str = "",
        key_id: str = "",
        reason: str,
        files: Iterable[str] = (),
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> str:
        """Destroy keys for good and return the signed certificate of destruction, a JSON text.

        ``files`` are what is known to be sealed under them; they go into the log and the certificate as they are.
        """
        names = list(files)
        return self._core.shred(dataset, tenant, key_id, reason, names, *_authorization(operation, approvals))

    def certificate(self, *, dataset: str = "", tenant: str = "", key_id: str = "") -> str:
        """Sign the certificate of the last :meth:`shred` of this target anew, where the first was lost.

        Raises ``hushgrad.errors.KeyError`` when nothing was destroyed under that name.
        """
        return self._core.certificate(dataset, tenant, key_id)

    def break_glass(
        self,
        *,
        dataset: str = "",
        tenant: str = "",
        key_id: str = "",
        reason: str,
        minutes: int,
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> None:
        """Let suspended or compromised keys open files for 1 to 60 minutes.

        In the log, on disk, before it opens anything, and so is each use. Afterwards the keys seal nothing until they are
        rotated.
        """
        self._core.break_glass(dataset, tenant, key_id, reason, minutes, *_authorization(operation, approvals))

    def add_identity(
        self,
        name: str,
        role: Role,
        key: PublicKey,
        *,
        operation: Operation | None = None,
        approvals: Sequence[Approval] = (),
    ) -> None:
        """Register a person. As soon as there is a custodian, nobody else changes keys."""
        self._core.add_identity(name, role, key._core, *_authorization(operation, approvals))

    def remove_identity(
        self, identity: str, *, reason: str, operation: Operation | None = None, approvals: Sequence[Approval] = ()
    ) -> None:
        """Remove the person whose key has the id ``identity``."""
        self._core.remove_identity(identity, reason, *_authorization(operation, approvals))

    def identities(self) -> Sequence[Identity]:
        """Everybody who is or was registered."""
        return [
            Identity(
                row["id"],
                row["name"],
                row["role"],
                PublicKey.from_pem(row["public_key"]),
                time_of(row["added"]),
                time_of(row["removed"]) if row["removed"] else None,
            )
            for row in self.describe()["identities"]
        ]

    def protect(self, *, passphrase: str | None = None, machine: bool = False) -> None:
        """Wrap the root key anew: under another passphrase, or none. Old copies keep the old one."""
        self._core.protect(passphrase_bytes(passphrase), machine)

    def request(
        self, action: str, *, reason: str, lifetime: timedelta = timedelta(days=1), **scope: str | int
    ) -> Operation:
        """Ask for an operation that needs approvals, in the name of this keyring's identity.

        ``action`` and ``scope`` are those of the call that follows: ``request("shred", dataset="icu", reason=...)``;
        resume, reinstate, shred (dataset, tenant or key), break-glass (and minutes), add-identity (identity, name, role),
        remove-identity (identity), accept-restored. The reason of the call may be another.
        """
        words = {name: str(value) for name, value in scope.items()}
        return Operation.from_text(self._core.request(action, words, reason, int(lifetime.total_seconds())))

    def verify(self) -> Sequence[LogEntry]:
        """Verify every entry and signature of the key log, and that every key is intact; return the entries."""
        return [
            LogEntry(
                row["sequence"],
                row["hash"],
                time_of(row["time"]),
                row["generation"],
                row["actor"],
                row["action"],
                row["details"],
            )
            for row in json.loads(self._core.verify())
        ]

    def describe(self) -> dict[str, Any]:
        """Everything that may be shown: keys with their changes, identities, protection, the head of the log."""
        described: dict[str, Any] = json.loads(self._core.describe())
        return described

    def _capsule(self) -> Any:
        return self._core._capsule()

    def __repr__(self) -> str:
        return f"Keyring({self.path!r})"


def _seconds(moment: datetime | None) -> int:
    if moment is None:
        return 0
    if moment.tzinfo is None:
        raise InvalidArgument("[keys] Expected a time with a time zone, received one without. Add tzinfo.")
    return int(moment.timestamp())


def _authorization(operation: Operation | None, approvals: Sequence[Approval]) -> tuple[str | None, list[str]]:
    return operation.text if operation else None, [approval.text for approval in approvals]
