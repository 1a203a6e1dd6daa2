"""A keyring under a passphrase is what docs/formats/keyring.md says: another library derives the same key from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hushgrad._core as core
from hushgrad.errors import KeyError
from hushgrad.keys import Keyring
from keyring_reader import opened_keyring


def test_another_argon2id_opens_the_keyring(tmp_path: Path) -> None:
    pytest.importorskip("cryptography.hazmat.primitives.kdf.argon2")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

    keyring = Keyring.create(tmp_path / "k", passphrase="correct horse \u00e9")
    keyring.create_key(dataset="icu")
    protection = json.loads((tmp_path / "k").read_bytes().split(b"\n")[1])["protection"]
    assert {name: protection[name] for name in ("kdf", "cost", "passes", "lanes")} == {
        "kdf": "argon2id", "cost": 65536, "passes": 3, "lanes": 4,
    }  # fmt: skip
    data_key = bytes(range(32))
    key_id, wrapped, _ = core.wrap_for_testing(keyring._core, "icu", data_key)
    try:
        _, _, datasets = opened_keyring(tmp_path / "k", "correct horse \u00e9".encode())
    except UnsupportedAlgorithm:
        pytest.skip("SKIPPED: cryptography was built with an OpenSSL before 3.2")
    assert aes_key_unwrap_with_padding(datasets[key_id], wrapped) == data_key
    with pytest.raises(InvalidUnwrap):
        opened_keyring(tmp_path / "k", b"correct horse")
    with pytest.raises(KeyError):
        Keyring(tmp_path / "k", passphrase="correct horse")
