"""Identities that sign: people who approve, runs that vouch for their checkpoints, keyrings that vouch for their logs.

ECDSA over P-384 with SHA-384, or Ed25519 outside FIPS mode. Private keys stay in the C++ core: nothing here returns,
prints or logs one. Works without PyTorch.
"""

from __future__ import annotations

import os
from typing import Literal, NoReturn

import hushgrad._core as _native

__all__ = ["Algorithm", "PublicKey", "SigningKey"]

Algorithm = Literal["ecdsa-p384-sha384", "ed25519"]


class PublicKey:
    """A public key and, by its :attr:`id`, the identity of whoever holds the private one. Made by :meth:`from_pem`."""

    _core: _native.PublicKey

    @classmethod
    def from_pem(cls, pem: str) -> PublicKey:
        """Read one ``PUBLIC KEY`` block of a P-384 key (uncompressed point) or an Ed25519 key.

        Raises ``hushgrad.errors.InvalidArgument`` for anything else, and for Ed25519 in FIPS mode.
        """
        return cls._of(_native.PublicKey.from_pem(pem))

    @classmethod
    def _of(cls, core: _native.PublicKey) -> PublicKey:
        key = cls.__new__(cls)
        key._core = core
        return key

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo as PEM; the same text for the same key, whoever wrote it."""
        return self._core.pem

    @property
    def id(self) -> str:
        """The first 32 hexadecimal digits of SHA-384 over the SubjectPublicKeyInfo in DER."""
        return self._core.id

    @property
    def algorithm(self) -> Algorithm:
        """``"ecdsa-p384-sha384"`` or ``"ed25519"``."""
        return "ed25519" if self._core.algorithm == "ed25519" else "ecdsa-p384-sha384"

    def verify(self, context: str, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` was made by this key for exactly this context and message.

        False for every malformed signature. ``context`` names the purpose: 1 to 64 characters of a-z, 0-9, space and
        ``-_./`` (``InvalidArgument`` otherwise).
        """
        return self._core.verify(context, message, signature)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.id == other.id and self.pem == other.pem

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PublicKey(id={self.id!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return PublicKey.from_pem, (self.pem,)


class SigningKey:
    """A private key, made by :meth:`generate` or :meth:`load`. It cannot be copied, pickled or printed."""

    _core: _native.SigningKey

    @classmethod
    def generate(cls, algorithm: Algorithm = "ecdsa-p384-sha384") -> SigningKey:
        """Make a new key. Raises ``hushgrad.errors.InvalidArgument`` for Ed25519 in FIPS mode."""
        return cls._of(_native.SigningKey.generate(algorithm))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> SigningKey:
        """Read a PKCS#8 file that only its owner may read.

        Raises ``hushgrad.errors.KeyError`` when it is missing, open to others, malformed, of another algorithm, or does
        not open with ``passphrase``.
        """
        return cls._of(_native.SigningKey.load(os.fspath(path), passphrase_bytes(passphrase)))

    @classmethod
    def _of(cls, core: _native.SigningKey) -> SigningKey:
        key = cls.__new__(cls)
        key._core = core
        return key

    def save(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Write the key as PKCS#8 in PEM, mode 0600, durably, where nothing stands yet.

        With a passphrase of 1 to 1024 bytes the file is encrypted (PBES2: AES-256 under scrypt, in FIPS mode PBKDF2).
        """
        self._core.save(os.fspath(path), passphrase_bytes(passphrase))

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return PublicKey._of(self._core.public_key)

    @property
    def id(self) -> str:
        """The id of the public key."""
        return self._core.public_key.id

    def sign(self, context: str, message: bytes) -> bytes:
        """Sign ``message`` for the purpose ``context``; see :meth:`PublicKey.verify`."""
        return self._core.sign(context, message)

    def __repr__(self) -> str:
        return f"SigningKey(id={self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("[signing] A SigningKey is not copied or pickled. Save it to a file of its owner.")

    __copy__ = __reduce__

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce__()


def passphrase_bytes(passphrase: str | None) -> bytes | None:
    """The UTF-8 of a passphrase."""
    return None if passphrase is None else passphrase.encode()
