"""Sealed files and folders: data sets, exported weights, logs, encrypted and authenticated under the key of a dataset.

Works without PyTorch. Checkpoints, which hold nested state and tensors, are ``hushgrad.checkpoint``'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument
from hushgrad.keys import Keyring
from hushgrad.scratch import Scratch
from hushgrad.signing import PublicKey, SigningKey

__all__ = ["Appearance", "KeyringLike", "Rewrapped", "Scratch", "inspect", "names", "open", "rewrap", "seal", "verify"]

#: A keyring or another key provider of hushgrad.keys, or the path of a keyring file.
KeyringLike = Union[Any, str, "os.PathLike[str]"]
Progress = Callable[[int, int], object]


def core_of(keyring: KeyringLike) -> Any:
    """The provider in the C++ core behind what users pass."""
    if isinstance(keyring, (str, os.PathLike)):
        keyring = Keyring(keyring)
    core = getattr(keyring, "_core", keyring)
    if not isinstance(core, _core.KeyProvider):
        raise InvalidArgument(f"[keyring] Expected a keyring, another key provider or a path, received {type(keyring).__name__}.")
    return core


def signing_key_of(identity: SigningKey | str | os.PathLike[str] | None) -> Any:
    """The signing key in the C++ core; a path is the file of one without a passphrase."""
    if identity is None:
        return None
    if isinstance(identity, SigningKey):
        return identity._core
    return SigningKey.load(os.fspath(identity))._core


def public_key_of(writer: PublicKey | str) -> Any:
    """The public key in the C++ core; a text is its PEM."""
    return (writer if isinstance(writer, PublicKey) else PublicKey.from_pem(writer))._core


@dataclass(frozen=True)
class Appearance:
    """What anybody sees of a sealed file without a key: UNAUTHENTICATED, good for lists, never for a decision."""

    core: dict[str, Any]
    digest: str
    """96 hexadecimal digits that name exactly this file."""
    signed: bool
    key_id: str
    """The dataset key that wraps the file's own; empty when no key slot is whole."""
    generation: int
    """How often the file's key was wrapped."""
    damaged_slot: bool
    """A re-wrap was interrupted; :func:`rewrap` clears it."""


def inspect(path: str | os.PathLike[str]) -> Appearance:
    """What a sealed file says of itself, without proof. Raises SealError when it is malformed."""
    return Appearance(**_core.appearance_of_sealed(os.fspath(path)))


def seal(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keyring: KeyringLike,
    dataset: str,
    overwrite: bool = False,
    identity: SigningKey | str | os.PathLike[str] | None = None,
    tenant: str = "",
    run_id: str = "",
    progress: Progress | None = None,
) -> str:
    """Seal a file, or a folder with all in it, into the new file ``target``; returns its digest.

    Read and encrypted piece by piece, whatever the size. ``source`` stays as it is. Of attributes only "executable" is kept.
    identity: signs the file. progress: called with bytes done and in all, about a hundred times.
    Raises InvalidArgument, naming it, for a link, a hard link, a FIFO, socket or device, a setuid, setgid or sticky bit and
    a name that is not plain UTF-8; IoError if ``target`` exists, or ``source`` changes meanwhile; KeyError without a key.
    """
    core = {"dataset": dataset, "tenant": tenant, "run_id": run_id}
    writer = _core.seal_path(
        os.fspath(source), os.fspath(target), core, core_of(keyring), overwrite, signing_key_of(identity), progress
    )
    writer.publish()
    return writer.digest


def open(  # noqa: A001 - named as the command; used qualified
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keyring: KeyringLike,
    overwrite: bool = False,
    writer: PublicKey | str | None = None,
    progress: Progress | None = None,
) -> None:
    """Open what :func:`seal` made, at ``target``: the file, or the folder.

    Plaintext appears there only complete and authenticated, readable by its owner only. Nothing is overwritten unless
    told; a folder is then replaced as a whole. writer: the identity (or its PEM) that must have signed it.
    Raises SealError for a file that was altered, or whose contents want to lie outside; KeyError; IoError; Unsupported for
    a checkpoint.
    """
    key = None if writer is None else public_key_of(writer)
    _core.open_archive(os.fspath(path), os.fspath(target), core_of(keyring), overwrite, key, progress)


def names(path: str | os.PathLike[str], *, keyring: KeyringLike) -> list[tuple[str, int]]:
    """Path and size of every file in an archive."""
    return _core.list_archive(os.fspath(path), core_of(keyring))


def verify(path: str | os.PathLike[str], *, writer: PublicKey | str) -> None:
    """Check, without any secret key, that ``writer`` signed exactly this file. Raises SealError if not."""
    _core.verify_sealed_manifest(os.fspath(path), public_key_of(writer))


@dataclass(frozen=True)
class Rewrapped:
    """What a re-wrap did."""

    changed: bool
    """False: the file was under the dataset's active key already."""
    old_key: str
    new_key: str
    generation: int


def rewrap(path: str | os.PathLike[str], *, keyring: KeyringLike, to: KeyringLike | None = None) -> Rewrapped:
    """Wrap the key of a sealed file anew under its dataset's active key (in ``to``, if that is another provider).

    The data is not touched: 8 KiB are written, whatever the size. The file opens at every moment, also after a kill; an
    interrupted re-wrap can be started again.
    """
    done = _core.rewrap_sealed(os.fspath(path), core_of(keyring), None if to is None else core_of(to))
    return Rewrapped(done["changed"], done["from"], done["to"], done["generation"])


