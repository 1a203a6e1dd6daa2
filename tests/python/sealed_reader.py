"""A second reader of sealed files, after docs/formats/sealed_file.md and c2sp.org/FLOE and with another library, for tests.

It takes nothing from hushgrad. Everything that the page says of a file is asserted on the way.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

ROOM = 1_048_544
SIZES = {
    **dict.fromkeys("BOOL U8 I8 F8_E4M3 F8_E5M2".split(), 1), **dict.fromkeys("U16 I16 F16 BF16".split(), 2),
    **dict.fromkeys("U32 I32 F32".split(), 4), **dict.fromkeys("U64 I64 F64 C64".split(), 8), "C128": 16,
}  # fmt: skip
CORE = {
    "dataset", "tenant", "run_id", "step", "plan", "epsilon", "ledger_id", "ledger_sequence", "ledger_hash", "policy", "policy_digest",
    "keyring_generation", "previous", "file_id", "created", "software", "writer", "index_bytes", "payload_bytes",
}  # fmt: skip


@dataclass
class Opened:
    core: dict[str, Any]
    meta: Any
    tensors: dict[str, tuple[str, list[int], bytes]]  # dtype, shape, bytes
    digest: str
    manifest: bytes
    signature: bytes
    key_id: str
    generation: int
    secrets: list[bytes]


def big_endian(data: bytes) -> int:
    return int.from_bytes(data, "big")


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha384).digest()


def expand(key: bytes, info: bytes, size: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    return HKDFExpand(SHA384(), size, info).derive(key)


def canonical(text: bytes) -> Any:
    value = json.loads(text)
    assert json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() == text
    return value


def open_sealed(path: Path, unwrap: Callable[[str, bytes], bytes]) -> Opened:
    """``unwrap``: the data key of a key id and a wrapped key, the business of the key provider."""
    file = path.read_bytes()
    assert file[:8] == b"HGSEALED"
    version, suite, flags = big_endian(file[8:10]), big_endian(file[10:12]), big_endian(file[12:16])
    assert (version, suite, flags) == (2, 1, 0)
    payload_bytes, c = big_endian(file[16:24]), big_endian(file[24:28])
    assert 1 <= payload_bytes <= 2**32 * ROOM and c <= 2**20
    n = -(-payload_bytes // ROOM)
    body, table_at = 8295 + c, 8295 + c + payload_bytes + 32 * n
    assert len(file) == table_at + 32 * n + 512
    core_text, core_digest = file[28 : 28 + c], sha384(file[: 28 + c])
    floe_header, trailer = file[8221 + c : body], file[-512:]

    slots = [file[at + c : at + c + 4096] for at in (29, 4125)]
    assert file[28 + c] == 0 and all(sha384(slot[:4048]) == slot[4048:] for slot in slots)
    empty, active = sorted(slots, key=lambda slot: big_endian(slot[:8]))
    assert big_endian(empty[:8]) == 0 and 1 <= big_endian(active[:8]) < 2**63
    k, w = big_endian(active[16:18]), big_endian(active[18:20])
    assert 1 <= k <= 1024 and 1 <= w <= 2048
    key_id = active[20 : 20 + k].decode("ascii")
    assert all("!" <= character <= "~" for character in key_id)
    data_key = unwrap(key_id, active[20 + k : 20 + k + w])
    assert len(data_key) == 32

    slot_key = expand(data_key, b"hushgrad sealed 2 keyblock", 48)
    manifest_key = expand(data_key, b"hushgrad sealed 2 manifest", 48)
    payload_key = expand(data_key, b"hushgrad sealed 2 payload", 32)
    for slot in slots:
        assert mac(slot_key, core_digest + slot[:4000]) == slot[4000:4048]
    manifest = core_digest + floe_header + n.to_bytes(8, "big") + trailer[:48]
    assert mac(manifest_key, manifest + trailer[48:464]) == trailer[464:]
    s = big_endian(trailer[48:50])
    assert s <= 414

    table = file[table_at : table_at + 32 * n]
    assert sha384(table) == trailer[:48]
    payload = b""
    secrets = [data_key, slot_key, manifest_key, payload_key]
    open_segment = floe(payload_key, floe_header, b"hushgrad sealed 2" + core_digest)
    for i in range(n):
        segment = file[body + i * 2**20 : min(body + (i + 1) * 2**20, table_at)]
        assert hashlib.sha256(segment).digest() == table[32 * i : 32 * i + 32]
        payload += open_segment(i, i == n - 1, segment)
    assert len(payload) == payload_bytes

    core = canonical(core_text)
    assert set(core) == CORE and core["payload_bytes"] == payload_bytes and bool(core["writer"]) == (s > 0)
    meta, tensors = read_payload(payload, core["index_bytes"])
    return Opened(core, meta, tensors, sha384(manifest).hex(), manifest, trailer[50 : 50 + s], key_id, big_endian(active[:8]), secrets)


def signed_by(opened: Opened, pem: str) -> bool:
    """Whether the owner of an ECDSA key in PEM signed the manifest and is named in the core."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA384

    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp384r1"
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if opened.core["writer"] != sha384(encoded).hex()[:32]:
        return False
    try:
        key.verify(opened.signature, b"hushgrad signature 1\0hushgrad sealed 2 manifest\0" + opened.manifest, ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True


def floe(key: bytes, header: bytes, associated_data: bytes) -> Callable[[int, bool, bytes], bytes]:
    """FLOE's decryption: checks the header, returns what opens segment i."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    parameters, iv, tag = header[:10], header[10:42], header[42:]
    assert parameters == bytes.fromhex("00000010000000000020") and len(tag) == 32

    def derive(secret: bytes, purpose: bytes, size: int) -> bytes:
        return expand(secret, parameters + iv + purpose + associated_data, size)

    assert hmac.compare_digest(derive(key, b"HEADER_TAG:", 32), tag)
    message_key = derive(key, b"MESSAGE_KEY:", 48)

    def open_segment(i: int, last: bool, segment: bytes) -> bytes:
        assert segment[:4] == (len(segment).to_bytes(4, "big") if last else b"\xff" * 4)
        aes = AESGCM(derive(message_key, b"DEK:" + (i - i % 2**20).to_bytes(8, "big"), 32))
        return aes.decrypt(segment[4:16], segment[16:], i.to_bytes(8, "big") + bytes([last]))

    return open_segment


def read_payload(payload: bytes, index_bytes: int) -> tuple[Any, dict[str, tuple[str, list[int], bytes]]]:
    assert big_endian(payload[:8]) == index_bytes <= 64 * 2**20
    index, area = canonical(payload[8 : 8 + index_bytes]), payload[8 + index_bytes :]
    assert set(index) == {"meta", "tensors"}
    tensors, begin = {}, 0
    for entry in index["tensors"]:
        assert set(entry) == {"begin", "dtype", "end", "name", "shape"} and entry["name"] not in tensors
        assert 1 <= len(entry["name"].encode()) <= 4096
        assert entry["begin"] == begin and entry["end"] - begin == prod(entry["shape"]) * SIZES[entry["dtype"]]
        tensors[entry["name"]] = entry["dtype"], entry["shape"], area[begin : entry["end"]]
        begin = entry["end"]
    assert begin == len(area)
    return json.loads(index["meta"]), tensors
