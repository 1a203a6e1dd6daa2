"""Keys of datasets: where they are, what state they are in, who may change them. Works without PyTorch.

A :class:`Keyring` is one local file, :class:`Pkcs11` a token, :class:`KeyProvider` what a key service subclasses. Key material stays in
the C++ core: nothing here returns, prints or logs it, except to a :class:`KeyProvider` that is written in Python. For people:
``docs/keys.md``.
"""

from __future__ import annotations

import os

import hushgrad._core as _core
from hushgrad.keys_joint import JointProvider
from hushgrad.keys_keyring import Identity, Keyring, LogEntry
from hushgrad.keys_pkcs11 import Pkcs11
from hushgrad.keys_provider import Key, KeyProvider, KeyState
from hushgrad.signing import PublicKey

__all__ = [
    "Identity",
    "JointProvider",
    "Key",
    "KeyProvider",
    "KeyState",
    "Keyring",
    "LogEntry",
    "Pkcs11",
    "fips_mode",
    "read_passphrase",
    "require_fips",
    "self_test",
    "verify_certificate",
]


def verify_certificate(text: str, signer: PublicKey) -> bool:
    """Whether ``text`` is an unaltered certificate of destruction, signed by ``signer`` (:attr:`Keyring.public_key`)."""
    return _core.verify_certificate(text, signer._core)


def read_passphrase(path: str | os.PathLike[str]) -> str:
    """The first line of a file that only its owner may read: a passphrase. ``KeyError`` when open to others or empty."""
    return _core.read_secret_line(os.fspath(path), "passphrase").decode()


def require_fips() -> None:
    """Turn FIPS mode on for this process, for good; ``HUSHGRAD_FIPS=1`` does the same.

    From then on every algorithm comes from OpenSSL's FIPS provider. Raises ``hushgrad.errors.Unsupported`` when none is
    installed or its self-tests fail: nothing falls back to another provider.
    """
    _core.require_fips()


def fips_mode() -> bool:
    """Whether FIPS mode is on."""
    return _core.fips_mode()


def self_test() -> dict[str, bool]:
    """Known-answer tests of the cryptography, run now: name -> passed. The first use of a keyring runs them too."""
    return _core.self_test()
