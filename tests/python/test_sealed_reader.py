"""Files that hushgrad writes are those of docs/formats/sealed_file.md: a reader made from the page alone opens them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

import hushgrad._core as core
from hushgrad import sealed
from hushgrad.keys import Keyring
from hushgrad.signing import SigningKey
from keyring_reader import dataset_keys
from sealed_reader import expand, open_sealed, sha384, signed_by

pytest.importorskip("cryptography")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="icu", tenant="clinic")
    return made


def unwrap(key: bytes, wrapped: bytes) -> bytes:
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

    return aes_key_unwrap_with_padding(key, wrapped)


def test_what_hushgrad_writes_opens_by_the_page(keyring: Keyring, tmp_path: Path) -> None:
    big = bytes(range(256)) * 12_000  # three segments
    fields = {"dataset": "icu", "tenant": "clinic", "run_id": "run \u00e9\"\\\u2028", "step": 7, "epsilon_json": '{"epsilon": "infinity", "delta": 1e-5}'}
    tensors = [
        ("w", "F32", [2, 2], struct.pack("<4f", 1, 2, 3, 4)), ("none", "I64", [0, 5], b""), ("big \u2028 \u00e9", "U8", [len(big)], big),
        ("n", "C128", [], struct.pack("<2d", 1, -1)),
    ]  # fmt: skip
    identity = SigningKey.generate()
    writer = core.SealedWriter(str(tmp_path / "a"), fields, '{"lr": [0.1, null]}', tensors, keyring._core, False, identity._core)
    writer.publish()
    keys = dataset_keys(tmp_path / "keys")
    for generation in (1, 2):
        opened = open_sealed(tmp_path / "a", lambda key_id, wrapped: unwrap(keys[key_id], wrapped))
        assert opened.generation == generation and opened.digest == writer.digest
        assert opened.tensors == {name: (dtype, shape, data) for name, dtype, shape, data in tensors}
        assert opened.meta == {"lr": [0.1, None]} and signed_by(opened, identity.public_key.pem)
        assert {key: opened.core[key] for key in ("dataset", "tenant", "run_id", "step")} == {
            key: fields[key] for key in ("dataset", "tenant", "run_id", "step")
        }
        assert opened.core["writer"] == identity.public_key.id and re.fullmatch("[0-9a-f]{32}", opened.core["file_id"])
        keyring.rotate_key(dataset="icu")
        sealed.rewrap(tmp_path / "a", keyring=keyring)
        keys = dataset_keys(tmp_path / "keys")


@pytest.mark.parametrize("payload", [8, 1_048_543, 1_048_544, 1_048_545, 2 * 1_048_544])
def test_lengths_around_a_segment(payload: int, keyring: Keyring, tmp_path: Path) -> None:
    index = len('{"meta":"{}","tensors":[{"begin":0,"dtype":"U8","end":1000000,"name":"w","shape":[1000000]}]}') + 8
    data = bytes(max(0, payload - index))
    core.write_sealed(str(tmp_path / "a"), {"dataset": "icu"}, "{}", [("w", "U8", [len(data)], data)], keyring._core)
    keys = dataset_keys(tmp_path / "keys")
    opened = open_sealed(tmp_path / "a", lambda key_id, wrapped: unwrap(keys[key_id], wrapped))
    assert opened.tensors["w"][2] == data
    if payload > 10**6 and payload < 2 * 10**6:
        assert opened.core["payload_bytes"] == payload


def golden_file() -> tuple[bytes, str]:
    """The file, and the PEM of who signed it."""
    text = (ROOT / "tests" / "dpcore" / "sealed" / "golden_file_test.cpp").read_text(encoding="utf-8")
    parts = text[text.index("kSealed[] = {") : text.index("};", text.index("kSealed[] = {"))]
    file = b""
    for digits, zeros in re.findall(r'\{((?:\s*"[0-9a-f]*")+),\s*(\d+)\}', parts):
        file += bytes.fromhex("".join(re.findall("[0-9a-f]+", digits))) + bytes(int(zeros))
    pem = text[text.index("kWriter[]") : text.index(";", text.index("kWriter[]"))]
    return file, "\n".join(re.findall(r'"(.*)\\n"', pem)) + "\n"


def test_the_worked_example_is_the_golden_file(tmp_path: Path) -> None:
    """Every number of the page's two tables stands in the file, at its offset, or follows from it."""
    page = (ROOT / "docs" / "formats" / "sealed_file.md").read_text(encoding="utf-8")
    page = page[page.index("## Worked example") : page.index("## Errors")]
    file, pem = golden_file()
    assert f"file of {len(file)} bytes" in page
    (tmp_path / "golden").write_bytes(file)
    data_keys: list[bytes] = []

    def with_key(key_id: str, wrapped: bytes) -> bytes:
        assert key_id == "00112233445566778899aabbccddeeff"
        data_keys.append(unwrap(bytes(range(32)), wrapped))
        return data_keys[-1]

    opened = open_sealed(tmp_path / "golden", with_key)
    assert {name: data for name, (_, _, data) in opened.tensors.items()} == {"w": struct.pack("<4f", 1, 2, 3, 4), "n": struct.pack("<q", 7)}
    assert opened.meta == {"lr": 0.1}
    checked = 0
    for offset, size, value in re.findall(r"^\| (\d+) \| (\d+) \| (.*) \|$", page, re.M):
        at = file[int(offset) : int(offset) + int(size)]
        for code in re.findall(r"`([0-9a-f ]+)(?:\.\.\.)?`", value):
            digits = code.replace(" ", "")
            assert code.encode() in at or bytes.fromhex(digits) in at, f"{code} is not at {offset}"
            checked += 1
    assert checked >= 15
    assert f"SHA-384 of bytes 0 to 569: `{sha384(file[:569]).hex()}`" in page
    derived = dict(re.findall(r"^\| ([a-z ]+) \| `([0-9a-f]+)` \|$", page, re.M))
    assert derived["data key"] == data_keys[0].hex()
    for name, label, size in (("slot key", b"keyblock", 48), ("manifest key", b"manifest", 48), ("payload key", b"payload", 32)):
        assert derived[name] == expand(data_keys[0], b"hushgrad sealed 2 " + label, size).hex()
    assert derived["digest"] == opened.digest
    assert signed_by(opened, pem)
