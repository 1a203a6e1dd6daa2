"""A second reader of keyring files, after docs/formats/keyring.md and with another library, for tests."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any


def dataset_keys(path: Path) -> dict[str, bytes]:
    """The keys of datasets by their id, from a keyring without passphrase."""
    return opened_keyring(path)[2]


def opened_keyring(path: Path, passphrase: bytes = b"") -> tuple[bytes, dict[str, bytes], dict[str, bytes]]:
    """The root key, the keys of tenants by name, those of datasets by id."""
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

    data = path.read_bytes()
    first, body, root_line, mac_line, rest = data.split(b"\n")
    assert first == b"hushgrad keyring 2" and rest == b""
    root = bytes.fromhex(root_line.removeprefix(b"root ").decode())
    if passphrase:
        root = aes_key_unwrap_with_padding(_protection_key(json.loads(body)["protection"], passphrase), root)

    def derived(label: bytes, size: int) -> bytes:
        return HKDFExpand(SHA384(), size, label).derive(root)

    covered = data[: data.rindex(b"hmac-sha384 ")]
    mac = hmac.new(derived(b"hushgrad keyring 2 mac", 48), covered, hashlib.sha384).hexdigest()
    assert mac_line == b"hmac-sha384 " + mac.encode()

    keys: list[dict[str, Any]] = json.loads(body)["keys"]
    under_root = derived(b"hushgrad keyring 2 wrap", 32)
    tenants = {
        key["tenant"]: aes_key_unwrap_with_padding(under_root, bytes.fromhex(key["wrapped"]))
        for key in keys
        if not key["dataset"] and key["wrapped"]
    }
    datasets = {
        key["id"]: aes_key_unwrap_with_padding(tenants[key["tenant"]], bytes.fromhex(key["wrapped"]))
        for key in keys
        if key["dataset"] and key["wrapped"]
    }
    return root, tenants, datasets


def _protection_key(protection: dict[str, Any], passphrase: bytes) -> bytes:
    """Of a keyring that is not bound to a machine."""
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    salt, cost = bytes.fromhex(protection["salt"]), protection["cost"]
    kdf: Any
    if protection["kdf"] == "argon2id":
        kdf = Argon2id(salt=salt, length=32, iterations=protection["passes"], lanes=protection["lanes"], memory_cost=cost)
    else:
        kdf = Scrypt(salt=salt, length=32, n=cost, r=8, p=1)
    extracted = hmac.new(salt, kdf.derive(passphrase) + bytes(32), hashlib.sha384).digest()
    return HKDFExpand(SHA384(), 32, b"hushgrad keyring 2 protection").derive(extracted)
