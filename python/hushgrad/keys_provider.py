"""What every place of keys has in common: a key that may be shown, and the class to subclass for a key service."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import hushgrad._core as _core

__all__ = ["Key", "KeyProvider", "KeyState", "key_of", "time_of"]

KeyState = Literal["pre-active", "active", "suspended", "deactivated", "compromised", "destroyed"]
"""States of NIST SP 800-57. An active key seals and opens, a deactivated one only opens, the others do neither."""


@dataclass(frozen=True)
class Key:
    """What may be shown of a key. No key material."""

    id: str
    """32 hexadecimal digits; names the key in sealed files, says nothing about it."""
    dataset: str
    created: datetime
    """In UTC, by the clock of the machine that made it; informative."""
    state: KeyState
    tenant: str = "default"
    expires: datetime | None = None
    """From then on the key seals nothing new; it still opens."""


def time_of(text: str) -> datetime:
    """A time as the core writes it: ``2026-01-31T12:00:00Z``."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def key_of(row: tuple[Any, ...]) -> Key:
    """A key as the core lists it."""
    id, dataset, created, state, tenant, expires = row
    assert state in get_args(KeyState)
    return Key(id, dataset, time_of(created), state, tenant, time_of(expires) if expires else None)


class KeyProvider(_core.KeyProvider):
    """Where the keys of datasets are, when it is neither a keyring nor PKCS#11: subclass it for a key service.

    Anything that takes a keyring takes a provider. Data keys cross into Python here, as ``bytes`` that cannot be wiped;
    that is the price of a client that is written in Python. What a provider must keep is written at ``KeyProvider`` in
    ``dpcore/keys/key_provider.h``; ``tests/python/key_provider_contract.py`` tests it. Raise errors of
    ``hushgrad.errors``; of any other exception only the type is shown.
    """

    @abstractmethod
    def name(self) -> str:
        """Kind and place, for people. No secret."""

    @abstractmethod
    def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
        """Encrypt 32 bytes under the active key of ``dataset``: (key id, at most 1024 bytes, generation)."""

    @abstractmethod
    def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
        """The 32 bytes. ``KeyError`` when the key is unknown or may not be used, ``SealError`` when not intact."""

    @abstractmethod
    def key(self, key_id: str) -> Key:
        """The key of that id, usable or not. ``KeyError`` when unknown."""

    @abstractmethod
    def keys(self) -> list[Key]:
        """All keys in order of creation."""

    def generation(self) -> int:
        """Goes up with every change of keys or states; 0 where the service keeps none."""
        return 0

    def _key(self, key_id: str) -> tuple[str, ...]:
        return _row(self.key(key_id))

    def _list(self) -> list[tuple[str, ...]]:
        return [_row(key) for key in self.keys()]


def _row(key: Key) -> tuple[str, ...]:
    expires = f"{key.expires:%Y-%m-%dT%H:%M:%SZ}" if key.expires else ""
    return key.id, key.dataset, f"{key.created:%Y-%m-%dT%H:%M:%SZ}", key.state, key.tenant, expires
