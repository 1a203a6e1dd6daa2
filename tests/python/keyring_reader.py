"""A second reader of keyring files, after docs/formats/keyring.md and with another library, for tests."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any


def dataset_keys(path: Path) -> dict[str, bytes]:
    """The keys of datasets by their id, from a keyring without passphrase."""
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

    data = path.read_bytes()
    first, body, root_line, mac_line, rest = data.split(b"\n")
    assert first == b"hushgrad keyring 2" and rest == b""
    root = bytes.fromhex(root_line.removeprefix(b"root ").decode())

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
    return {
        key["id"]: aes_key_unwrap_with_padding(tenants[key["tenant"]], bytes.fromhex(key["wrapped"]))
        for key in keys
        if key["dataset"] and key["wrapped"]
    }
