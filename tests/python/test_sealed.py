"""Sealed files from Python, and against a second reader written from docs/formats/sealed_file.md alone."""

from __future__ import annotations

import array
import hashlib
import hmac
import json
import math
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hushgrad import _core
from hushgrad.errors import InvalidArgument, IoError, KeyError, SealError

CORE = {
    "dataset": "icu",
    "run_id": "run-7",
    "step": 12,
    "plan_json": '{"noise_multiplier": 1.1}',
    "ledger_sequence": 13,
    "ledger_hash": "ab12",
    "epsilon_json": '{"epsilon": [2.9, 3.0]}',
}
SEGMENT, ROOM = 2**20, 2**20 - 32


@pytest.fixture
def keyring(tmp_path: Path) -> Any:
    made = _core.Keyring.create(str(tmp_path / "k"))
    made.create_key("icu")
    return made


def test_round_trip(tmp_path: Path, keyring: Any) -> None:
    path = str(tmp_path / "a")
    weights = array.array("f", [random.random() for _ in range(600_000)])
    tensors = [
        ("w", "F32", [600_000], weights),
        ("b", "U8", [3], b"abc"),
        ("none", "I64", [0], b""),
        ("s", "I64", [], bytes(8)),
    ]
    _core.write_sealed(path, CORE, '{"lr": 0.1}', tensors, keyring)
    reader = _core.SealedReader(path, keyring)
    assert {name: reader.core[name] for name in CORE} == CORE
    assert _core.inspect_sealed(path) == reader.core
    assert reader.meta_json == '{"lr": 0.1}'
    assert [(t.name, t.dtype, t.shape) for t in reader.tensors] == [(n, d, s) for n, d, s, _ in tensors]
    assert reader.read("w") == weights.tobytes()
    assert reader.read("b") == b"abc"
    assert reader.read("none") == b""
    out = array.array("f", bytes(2_400_000))
    reader.read_into("w", out)
    assert out == weights
    reader.verify_all()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_errors_are_typed(tmp_path: Path, keyring: Any) -> None:
    path = str(tmp_path / "a")
    _core.write_sealed(path, CORE, "{}", [("w", "U8", [4], b"abcd")], keyring)
    with pytest.raises(IoError):
        _core.write_sealed(path, CORE, "{}", [], keyring)
    _core.write_sealed(path, CORE, "[]", [("w", "U8", [4], b"abcd")], keyring, overwrite=True)
    reader = _core.SealedReader(path, keyring)
    assert reader.meta_json == "[]"
    with pytest.raises(InvalidArgument):
        reader.read("x")
    for room in (bytearray(3), bytes(4), memoryview(bytearray(8))[::2]):  # short; read-only; with gaps
        with pytest.raises(InvalidArgument):
            reader.read_into("w", room)
    with pytest.raises(InvalidArgument):
        _core.write_sealed(str(tmp_path / "b"), {**CORE, "extra": 1}, "{}", [], keyring)
    with pytest.raises(InvalidArgument):
        _core.write_sealed(str(tmp_path / "b"), CORE, "{}", [("w", "F32", [2], b"1234")], keyring)
    with pytest.raises(InvalidArgument):
        _core.write_sealed(str(tmp_path / "b"), CORE, "{}", [("w", "U8", [4], memoryview(bytearray(8))[::2])], keyring)
    with pytest.raises(KeyError):
        _core.write_sealed(str(tmp_path / "b"), {**CORE, "dataset": "other"}, "{}", [], keyring)
    stranger = _core.Keyring.create(str(tmp_path / "k2"))
    stranger.create_key("icu")
    with pytest.raises(KeyError):
        _core.SealedReader(path, stranger)
    sealed = bytearray(Path(path).read_bytes())
    sealed[-600] ^= 1
    Path(path).write_bytes(sealed)
    with pytest.raises(SealError, match="segment 0"):
        _core.SealedReader(path, keyring)
    assert sorted(os.listdir(tmp_path)) == ["a", "k", "k.log", "k2", "k2.log"]


def second_reader(path: Path, keys: PlainKeys) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """core, index and tensor bytes of a sealed file; slow and plain, nothing shared with the library."""
    pytest.importorskip("cryptography", reason="SKIPPED: the second reader needs the package cryptography")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    def expand(key: bytes, info: bytes, length: int) -> bytes:
        return HKDFExpand(SHA384(), length, info).derive(key)

    data = path.read_bytes()
    assert data[:16] == b"HGSEALED" + bytes([0, 2, 0, 1, 0, 0, 0, 0])
    payload_bytes = int.from_bytes(data[16:24], "big")
    core_end = 28 + int.from_bytes(data[24:28], "big")
    core_text, core_digest = data[28:core_end], hashlib.sha384(data[:core_end]).digest()
    assert data[core_end] == 0  # no re-wrap is going on
    core_end += 1
    slot, empty = data[core_end : core_end + 4096], data[core_end + 4096 : core_end + 8192]
    assert hashlib.sha384(slot[:4048]).digest() == slot[4048:] and hashlib.sha384(empty[:4048]).digest() == empty[4048:]
    assert empty[:8] == bytes(8)
    generation, provider, key_id_bytes, wrapped_bytes = struct.unpack(">QQHH", slot[:20])
    key_id = slot[20 : 20 + key_id_bytes].decode()
    wrapped = slot[20 + key_id_bytes :][:wrapped_bytes]
    assert generation == 1
    floe_header = data[core_end + 8192 : core_end + 8266]
    segments = math.ceil(payload_bytes / ROOM)
    body_end = core_end + 8266 + payload_bytes + 32 * segments
    body, table, trailer = data[core_end + 8266 : body_end], data[body_end:-512], data[-512:]
    assert len(table) == 32 * segments

    data_key = keys.unwrap(key_id, wrapped, provider)
    mac_key = expand(data_key, b"hushgrad sealed 2 keyblock", 48)
    for part in (slot, empty):
        assert hmac.new(mac_key, core_digest + part[:4000], hashlib.sha384).digest() == part[4000:4048]

    # The manifest
    table_digest = hashlib.sha384(table).digest()
    manifest = core_digest + floe_header + segments.to_bytes(8, "big") + table_digest
    assert trailer[:48] == table_digest
    mac_key = expand(data_key, b"hushgrad sealed 2 manifest", 48)
    assert hmac.new(mac_key, manifest + trailer[48:464], hashlib.sha384).digest() == trailer[464:]
    assert _core.SealedReader(str(path), keys).digest == hashlib.sha384(manifest).hexdigest()

    # FLOE, c2sp.org/FLOE
    floe_key = expand(data_key, b"hushgrad sealed 2 payload", 32)
    aad = b"hushgrad sealed 2" + core_digest
    assert floe_header[:10] == bytes([0, 0]) + SEGMENT.to_bytes(4, "big") + (32).to_bytes(4, "big")
    assert floe_header[42:] == expand(floe_key, floe_header[:42] + b"HEADER_TAG:" + aad, 32)
    message_key = expand(floe_key, floe_header[:42] + b"MESSAGE_KEY:" + aad, 48)
    payload = b""
    for i in range(segments):
        segment, final = body[i * SEGMENT : (i + 1) * SEGMENT], i == segments - 1
        assert hashlib.sha256(segment).digest() == table[32 * i : 32 * i + 32]
        assert segment[:4] == (len(segment).to_bytes(4, "big") if final else b"\xff" * 4)
        key = expand(message_key, floe_header[:42] + b"DEK:" + (i >> 20 << 20).to_bytes(8, "big") + aad, 32)
        payload += AESGCM(key).decrypt(segment[4:16], segment[16:], i.to_bytes(8, "big") + bytes([final]))
    index_end = 8 + int.from_bytes(payload[:8], "big")
    return json.loads(core_text), json.loads(payload[8:index_end]), payload[index_end:]


class PlainKeys(_core.KeyProvider):
    """One key that the second reader knows too."""

    kek = bytes(range(32))
    row = ("00112233445566778899aabbccddeeff", "icu", "2026-01-31T12:00:00Z", "active", "default", "")

    def name(self) -> str:
        return "test"

    def generation(self) -> int:
        return 5

    def _list(self) -> list[tuple[str, ...]]:
        return [self.row]

    def _key(self, key_id: str) -> tuple[str, ...]:
        return self.row

    def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

        return self.row[0], aes_key_wrap_with_padding(self.kek, data_key), 5

    def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
        from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

        assert (key_id, generation) == (self.row[0], 5)
        return aes_key_unwrap_with_padding(self.kek, wrapped)


def test_a_second_reader_agrees(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="SKIPPED: the second reader needs the package cryptography")
    keys = PlainKeys()
    weights = random.randbytes(2 * ROOM + 17)
    tensors = [("w", "U8", [len(weights)], weights), ("b", "BF16", [2], b"1234")]
    _core.write_sealed(str(tmp_path / "a"), CORE, '{"lr": 0.1}', tensors, keys)
    core, index, data = second_reader(tmp_path / "a", keys)
    assert {name: core[name] for name in (*CORE, "plan", "epsilon") if name in core} == {
        **{name: CORE[name] for name in ("dataset", "run_id", "step", "ledger_sequence", "ledger_hash")},
        "plan": CORE["plan_json"],
        "epsilon": CORE["epsilon_json"],
    }
    n = len(weights)
    assert index == {
        "meta": '{"lr": 0.1}',
        "tensors": [
            {"name": "w", "dtype": "U8", "shape": [n], "begin": 0, "end": n},
            {"name": "b", "dtype": "BF16", "shape": [2], "begin": n, "end": n + 4},
        ],
    }
    assert data == weights + b"1234"


SAVE_FOREVER = """
import sys
from hushgrad import _core
path, keys, core = sys.argv[1], _core.Keyring(sys.argv[2]), eval(sys.argv[3])
size = 3 * 2**20
print("ready", flush=True)
for n in range(10**9):
    core["step"] = n
    _core.write_sealed(path, core, "{}", [("w", "U8", [size], bytes([n % 251]) * size)], keys, overwrite=True)
"""


def test_kill_during_save_leaves_a_complete_file(tmp_path: Path, keyring: Any) -> None:
    path = tmp_path / "a"
    _core.write_sealed(str(path), CORE, "{}", [("w", "U8", [3 * 2**20], bytes([12]) * (3 * 2**20))], keyring)
    steps = set()
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path), str(tmp_path / "k"), repr(CORE)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        reader = _core.SealedReader(str(path), keyring)
        reader.verify_all()
        steps.add(reader.core["step"])
        assert reader.read("w") == bytes([reader.core["step"] % 251]) * (3 * 2**20)
    assert len(steps) > 1, "no kill came after a save: wait longer"
    for name in set(os.listdir(tmp_path)) - {"a", "k", "k.log"}:
        assert re.fullmatch(r"\.[0-9a-f]{32}\.hgtmp", name)


def test_other_threads_run_meanwhile(tmp_path: Path, keyring: Any) -> None:
    big = bytes(64 * 2**20)
    ticks, done = 0, threading.Event()

    def save() -> None:
        _core.write_sealed(str(tmp_path / "a"), CORE, "{}", [("w", "U8", [len(big)], big)], keyring)
        done.set()

    thread = threading.Thread(target=save)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 5


def test_threads_that_change_and_use_one_keyring(tmp_path: Path, keyring: Any) -> None:
    failures: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)

    def add() -> None:
        for i in range(20):
            keyring.create_key(f"d{i}")

    def save() -> None:
        for i in range(20):
            path = str(tmp_path / f"{threading.get_ident()}-{i}")
            _core.write_sealed(path, CORE, "{}", [("w", "U8", [4], b"abcd")], keyring)
            assert _core.SealedReader(path, keyring).read("w") == b"abcd"

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (add, add, save, save)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(keyring.list()) == 21
