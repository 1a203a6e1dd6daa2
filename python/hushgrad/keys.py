"""Keyrings: one local file that holds the keys of datasets, for sealed checkpoints. Works without PyTorch.

Key material stays in the C++ core: nothing here returns, prints or logs it. What the file promises and what not:
``docs/formats/keyring.md``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import hushgrad._core as _core

__all__ = ["Key", "Keyring"]


@dataclass(frozen=True)
class Key:
    """What may be shown of a key. No key material."""

    id: str
    """32 hexadecimal digits; names the key in sealed files, says nothing about it."""
    dataset: str
    created: datetime
    """In UTC, by the clock of the machine that made it; informative."""
    state: Literal["active", "retired"]
    """An active key seals and opens files, a retired one only opens them."""


_Keys = list[Key]  # inside Keyring, `list` is the method


class Keyring:
    """A keyring file of mode 0600 with one active AES-256 key a dataset.

    The file is replaced atomically and durably: after a crash it is the old or the new keyring, and two processes that
    add keys lose none. A file that is a symlink, not regular, of another owner, or open to group or others is refused,
    and so is one that was cut or altered by accident. It is no defence against somebody who may read or write it: who
    holds the keyring holds the data. Losing it loses every file sealed under it; keep a copy where only its keepers
    come.

    Args:
        path: an existing keyring; :meth:`create` makes a new one.

    Raises:
        hushgrad.errors.KeyError: the file is missing, refused or malformed.
        hushgrad.errors.IoError: the operating system refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._core = _core.Keyring(os.fspath(path))

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Keyring:
        """Make an empty keyring. ``IoError`` when anything, even a dangling symlink, stands at ``path``."""
        keyring = cls.__new__(cls)
        keyring._core = _core.Keyring.create(os.fspath(path))
        return keyring

    @property
    def path(self) -> str:
        """Where the file lies, as it was given."""
        path: str = self._core.path
        return path

    def create_key(self, *, dataset: str) -> None:
        """Add a random 256-bit key for ``dataset``; does nothing when the dataset has an active key.

        The name is stored in clear here and in sealed files: 1 to 256 bytes of UTF-8 without control characters and
        without a space at either end (``InvalidArgument`` otherwise), and no patient data in it.
        """
        self._core.create_key(dataset)

    def rotate_key(self, *, dataset: str) -> None:
        """Retire the active key of ``dataset`` and add a new one; files sealed earlier still open.

        Raises ``hushgrad.errors.KeyError`` when the dataset has no key.
        """
        self._core.rotate_key(dataset)

    def has_key(self, *, dataset: str) -> bool:
        """Whether ``dataset`` has an active key."""
        found: bool = self._core.has_key(dataset)
        return found

    def list(self) -> _Keys:
        """All keys in order of creation."""
        return [
            Key(id, dataset, datetime.fromisoformat(created.replace("Z", "+00:00")), state)
            for id, dataset, created, state, *_ in self._core.list()
        ]

    def __repr__(self) -> str:
        return f"Keyring({self.path!r})"
