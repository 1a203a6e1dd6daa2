"""Keys on a PKCS#11 token."""

from __future__ import annotations

import os
from typing import Any

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument
from hushgrad.keys_provider import Key, key_of

__all__ = ["Pkcs11"]

_Keys = list[Key]  # inside Pkcs11, `list` is the method
_Path = str | os.PathLike[str]


class Pkcs11:
    """Keys on a PKCS#11 token: a hardware module, a cloud HSM, SoftHSM. Anything that takes a keyring takes it.

    One AES-256 key a dataset: made on the token, not extractable, for wrapping only, and checked to be so at each use. The
    vendor's library runs in a helper process: when it hangs or crashes, the call is a ``KeyError`` after ``timeout``
    seconds, and no other provider is asked instead. A PIN that was refused is not tried again. The state of a key is kept
    on the token; another process sees a change at its next call.

    Args:
        module: path of the vendor's library.
        token: the token's label.
        pin_file: a file (mode 0600) whose first line is the user's PIN; or ``pin_descriptor``, an open descriptor that is
            read to its end. Never the environment or the command line, which others can see.
        timeout: seconds that one call may take, 1 to 600.
    """

    def __init__(
        self,
        module: _Path,
        token: str,
        *,
        pin_file: _Path | None = None,
        pin_descriptor: int | None = None,
        timeout: int = 10,
    ) -> None:
        if (pin_file is None) == (pin_descriptor is None):
            raise InvalidArgument("[pkcs11] Expected one of pin_file and pin_descriptor, received both or none.")
        file = "" if pin_file is None else os.fspath(pin_file)
        descriptor = -1 if pin_descriptor is None else pin_descriptor
        self._core = _core.Pkcs11(os.fspath(module), token, file, descriptor, timeout)

    @property
    def name(self) -> str:
        """Token and module."""
        return self._core.name()

    def create_key(self, *, dataset: str, tenant: str = "default") -> None:
        """Make a key for ``dataset`` on the token; does nothing when the dataset has an active key."""
        self._core.create_key(dataset, tenant)

    def rotate_key(self, *, dataset: str) -> None:
        """Deactivate the active key of ``dataset`` and make a new one. ``KeyError`` when there is none."""
        self._core.rotate_key(dataset)

    def has_key(self, *, dataset: str) -> bool:
        """Whether ``dataset`` has an active key."""
        return self._core.has_key(dataset)

    def list(self) -> _Keys:
        """The keys of hushgrad on the token, in order of creation."""
        return [key_of(row) for row in self._core.list()]

    def suspend(self, *, dataset: str) -> None:
        """The keys of ``dataset`` neither seal nor open until :meth:`resume`."""
        self._core.suspend(dataset)

    def resume(self, *, dataset: str) -> None:
        """End a suspension: the newest key seals and opens again, the others open."""
        self._core.resume(dataset)

    def revoke(self, *, dataset: str) -> None:
        """The keys of ``dataset`` are compromised: they neither seal nor open again."""
        self._core.revoke(dataset)

    def destroy(self, *, dataset: str) -> None:
        """Destroy the keys of ``dataset`` on the token, for good."""
        self._core.destroy(dataset)

    def _capsule(self) -> Any:
        return self._core._capsule()

    def __repr__(self) -> str:
        return f"Pkcs11({self.name!r})"
