"""Keys that a keyring and another place hold together."""

from __future__ import annotations

from typing import Any

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument
from hushgrad.keys_keyring import Keyring
from hushgrad.keys_provider import Key, key_of

__all__ = ["JointProvider"]

_Keys = list[Key]  # inside JointProvider, `list` is the method


class JointProvider:
    """Gives a token or a key service what only keyrings have: quorums, dates, usage limits, break-glass and the signed log.

    Neither place opens anything alone: each file's key is encrypted under two random shares, one wrapped by the keyring, one by
    ``place``, under the keys that both hold for the dataset. What either refuses is refused, at each use, and destroying the
    keys in either shreds. Neither place, nor Python, sees the key of a file. Anything that takes a keyring takes this.

    Keys, states, dates and the generation shown are those of the keyring; where ``place`` has no active key of a dataset, its
    active key is shown as suspended. Whoever may use both without this class, with the keyring's file and passphrase and the
    token's PIN, is bound by what ``place`` enforces itself only.

    Args:
        keyring: who may do what, by which quorum, how often and how long.
        place: a :class:`Pkcs11` token, ``hushgrad.aws_kms.AwsKms``, or another :class:`KeyProvider`; it wraps at most 869 bytes
            a share.
    """

    def __init__(self, keyring: Keyring, place: Any) -> None:
        core = getattr(place, "_core", place)
        if not isinstance(keyring, Keyring) or not isinstance(core, _core.KeyProvider):
            raise InvalidArgument("[joint] Expected a Keyring and another key provider, received objects of other types.")
        self._core = _core.JointProvider(keyring._core, core)

    @property
    def name(self) -> str:
        """Both places."""
        return self._core.name()

    def has_key(self, *, dataset: str) -> bool:
        """Whether ``dataset`` has an active key in both places."""
        return self._core.has_key(dataset)

    def list(self) -> _Keys:
        """The keys of the keyring, in order of creation."""
        return [key_of(row) for row in self._core.list()]

    def _capsule(self) -> Any:
        return self._core._capsule()

    def __repr__(self) -> str:
        return f"JointProvider({self.name!r})"
