"""`hushgrad seal`, `open` and `inspect`, and scratch directories, as people use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hushgrad import sealed
from hushgrad.errors import InvalidArgument, InvalidState, IoError, KeyError, SealError, Unsupported
from hushgrad.keys import Keyring
from hushgrad.scratch import Scratch
from hushgrad.signing import SigningKey

MARKER = b"these patients must not be found anywhere "


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="ward-7")
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "a" / "empty").mkdir(parents=True)
    (folder / "table.csv").write_bytes(MARKER * 40_000)
    (folder / "a" / "ünïcode name").write_bytes(b"")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_a_folder_goes_in_and_comes_out(source: Path, keyring: Keyring, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    digest = sealed.seal(source, tmp_path / "x", keyring=keyring, dataset="ward-7", progress=lambda *p: seen.append(p))
    assert seen and seen[-1][0] == seen[-1][1]
    assert MARKER not in (tmp_path / "x").read_bytes() and b"table.csv" not in (tmp_path / "x").read_bytes()
    assert dict(sealed.names(tmp_path / "x", keyring=keyring)) == {"table.csv": len(MARKER) * 40_000, "a/ünïcode name": 0}
    sealed.open(tmp_path / "x", tmp_path / "out", keyring=tmp_path / "keys")
    assert contents(tmp_path / "out") == contents(source)
    with pytest.raises(IoError):
        sealed.open(tmp_path / "x", tmp_path / "out", keyring=keyring)
    with pytest.raises(IoError):
        sealed.seal(source, tmp_path / "x", keyring=keyring, dataset="ward-7")
    assert sealed.inspect(tmp_path / "x").digest == digest and not sealed.inspect(tmp_path / "x").signed
    with pytest.raises(KeyError):
        sealed.seal(source, tmp_path / "y", keyring=keyring, dataset="another")
    os.symlink("/etc/passwd", source / "a" / "link")
    with pytest.raises(InvalidArgument, match="a/link"):
        sealed.seal(source, tmp_path / "y", keyring=keyring, dataset="ward-7")
    assert not (tmp_path / "y").exists()


def test_signed_and_rewrapped(source: Path, keyring: Keyring, tmp_path: Path) -> None:
    writer, other = SigningKey.generate(), SigningKey.generate()
    sealed.seal(source, tmp_path / "x", keyring=keyring, dataset="ward-7", identity=writer)
    keyring.rotate_key(dataset="ward-7")
    before = os.path.getsize(tmp_path / "x")
    done = sealed.rewrap(tmp_path / "x", keyring=keyring)
    assert done.changed and done.generation == 2 and done.old_key != done.new_key and os.path.getsize(tmp_path / "x") == before
    assert not sealed.rewrap(tmp_path / "x", keyring=keyring).changed
    sealed.verify(tmp_path / "x", writer=writer.public_key)
    with pytest.raises(SealError):
        sealed.verify(tmp_path / "x", writer=other.public_key.pem)
    with pytest.raises(SealError):
        sealed.open(tmp_path / "x", tmp_path / "out", keyring=keyring, writer=other.public_key)
    sealed.open(tmp_path / "x", tmp_path / "out", keyring=keyring, writer=writer.public_key)
    assert contents(tmp_path / "out") == contents(source)


def hushgrad(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "hushgrad", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_commands(source: Path, keyring: Keyring, tmp_path: Path) -> None:
    keys = ("--keyring", tmp_path / "keys")
    out = json.loads(hushgrad("seal", source, tmp_path / "x", "--dataset", "ward-7", *keys, "--json").stdout)
    assert "UNAUTHENTICATED" in hushgrad("inspect", tmp_path / "x").stdout
    shown = json.loads(hushgrad("inspect", tmp_path / "x", *keys, "--json").stdout)
    assert shown["digest"] == out["digest"] and shown["dataset"] == "ward-7" and shown["proof"] == "authentic to who holds the key"
    assert {c["name"] for c in shown["contents"]} == {"table.csv", "a/ünïcode name"}
    hushgrad("open", tmp_path / "x", tmp_path / "out", *keys)
    assert contents(tmp_path / "out") == contents(source)
    assert "exists" in hushgrad("open", tmp_path / "x", tmp_path / "out", *keys, code=1).stderr
    hushgrad("open", tmp_path / "x", tmp_path / "out", *keys, "--overwrite")
    content = bytearray((tmp_path / "x").read_bytes())
    content[-700_000] ^= 1
    (tmp_path / "x").write_bytes(content)
    assert "segment" in hushgrad("open", tmp_path / "x", tmp_path / "out2", *keys, code=1).stderr
    assert "segment" in hushgrad("inspect", tmp_path / "x", *keys, code=1).stderr
    assert not (tmp_path / "out2").exists()


def test_scratch_keeps_ciphertext_and_dies(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with Scratch(tmp_path) as scratch:
        scratch.put("batch 1", MARKER * 1000)
        scratch.put("batch 1", MARKER * 2000)
        scratch.save("../../etc/passwd", {"w": torch.ones(5), "marker": MARKER})
        assert scratch.get("batch 1") == MARKER * 2000
        assert torch.equal(scratch.load("../../etc/passwd")["w"], torch.ones(5))
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert len(files) == 2 and all(MARKER not in p.read_bytes() for p in files)
        child = os.fork()
        if child == 0:  # a worker that was forked reads it, and its end takes nothing away
            os._exit(0 if scratch.get("batch 1") == MARKER * 2000 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(Unsupported):
            import pickle

            pickle.dumps(scratch)
        with pytest.raises(InvalidArgument):
            scratch.get("nothing")
        scratch.remove("batch 1")
        kept = next(p for p in files if p.exists()).read_bytes()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidState):
        scratch.put("late", b"")
    (tmp_path / "copy").write_bytes(kept)
    with Scratch(tmp_path) as another, pytest.raises((KeyError, SealError)):
        from hushgrad import checkpoint

        checkpoint.load(tmp_path / "copy", keyring=another._core)


KILLED = """
import os, sys, time
from hushgrad.scratch import Scratch
scratch = Scratch(sys.argv[1])
scratch.put("x", b"y" * 100)
with scratch.compile_cache() as folder:
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(folder))
    (folder / "kernel.so").write_bytes(b"weights")
    print(folder, flush=True)
    time.sleep(100)
"""


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="SKIPPED: no /dev/shm")
def test_a_killed_run_leaves_no_compile_cache_and_no_key(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    folder = Path(child.stdout.readline().strip())
    assert (folder / "kernel.so").exists() and str(folder).startswith(("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "/dev/shm")))
    child.send_signal(signal.SIGKILL)
    child.wait()
    for _ in range(200):
        if not folder.exists():
            break
        time.sleep(0.05)
    assert not folder.exists()
    assert len(list(tmp_path.iterdir())) == 1  # ciphertext whose key is gone
    with Scratch(tmp_path) as scratch:  # sweeps what nobody holds
        assert list(tmp_path.iterdir()) == [scratch.path]


def everything_below(*roots: Path) -> list[bytes]:
    found: list[bytes] = []
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found.append(path.read_bytes())
    return found


RESIDUE = """
import ctypes, os, sys, tempfile
folder, mode = sys.argv[1:]
import torch
from hushgrad import checkpoint, sealed
from hushgrad.scratch import Scratch
weights = torch.frombuffer(bytearray(bytes(range(1, 241)) * 5000), dtype=torch.float32).clone()
state = {"secret name of a layer": weights}
checkpoint.save(f"{folder}/c", state, keyring=f"{folder}/keys", dataset="ward-7")
checkpoint.save_async(f"{folder}/d", state, keyring=f"{folder}/keys", dataset="ward-7").wait()
checkpoint.load(f"{folder}/c", keyring=f"{folder}/keys")
scratch = Scratch(folder)
scratch.save("x", state)
try:
    checkpoint.save(f"{folder}/c", state, keyring=f"{folder}/keys", dataset="ward-7")
except Exception as error:
    print(error, file=sys.stderr)
if mode == "crash":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("mode", ["exit", "crash"])
def test_no_plaintext_and_no_key_is_left_behind(mode: str, keyring: Keyring, tmp_path: Path) -> None:
    """Attack 30: disk, temporary folder, shared memory and logs after save, load and crash."""
    pytest.importorskip("torch")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    shared_before = set(Path("/dev/shm").glob("*")) if os.path.isdir("/dev/shm") else set()
    done = subprocess.run(
        [sys.executable, "-c", RESIDUE, str(tmp_path), mode], env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, check=False
    )
    assert done.returncode == (0 if mode == "exit" else -9), done.stderr
    plain = bytes(range(1, 241))
    keys = (tmp_path / "keys").read_bytes()
    haystacks = [done.stdout, done.stderr, *everything_below(temporary, *(set(Path("/dev/shm").glob("*")) - shared_before))]
    haystacks += [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("keys", "keys.log")]
    assert len(haystacks) >= 4
    for haystack in haystacks:
        assert plain[:32] not in haystack and b"secret name" not in haystack
        for i in range(0, len(keys) - 64, 16):  # no stretch of the keyring either
            assert keys[i : i + 64] not in haystack or b"hushgrad keyring" in keys[i : i + 64]


def test_sixteen_processes_save_rewrap_and_load_one_file(keyring: Keyring, tmp_path: Path) -> None:
    """Attack 26: one winner of a name, and readers always see a complete file."""
    from hushgrad import _core

    def seal(path: Path, step: int, overwrite: bool) -> bool:
        keys = Keyring(tmp_path / "keys")._core
        try:
            _core.write_sealed(str(path), {"dataset": "ward-7", "step": step}, "{}", [("w", "U8", [200_000], bytes([step]) * 200_000)], keys, overwrite=overwrite)
            return True
        except IoError:
            return False

    assert seal(tmp_path / "shared", 0, False)
    keyring.rotate_key(dataset="ward-7")
    children = []
    for n in range(16):
        child = os.fork()
        if child == 0:
            code = 9
            try:
                os.environ["OMP_NUM_THREADS"] = "1"
                won = seal(tmp_path / "once", n, False)
                for _ in range(5):
                    if n % 4 == 0:
                        seal(tmp_path / "shared", n, True)
                    elif n % 4 == 1:
                        sealed.rewrap(tmp_path / "shared", keyring=tmp_path / "keys")
                    reader = _core.SealedReader(str(tmp_path / "shared"), Keyring(tmp_path / "keys")._core)
                    assert reader.read("w") == bytes([reader.core["step"]]) * 200_000
                code = 1 if won else 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] * 15 + [1]
    winner: Any = _core.SealedReader(str(tmp_path / "once"), keyring._core).core["step"]
    assert codes[winner] == 1
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".hgtmp")) == []
