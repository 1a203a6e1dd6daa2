"""What a process that crashes leaves in its core file: no key, no PIN, nothing of a file that it was sealing or opening."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hushgrad import sealed
from hushgrad.keys import Keyring
from hushgrad.signing import SigningKey
from keyring_reader import opened_keyring
from sealed_reader import open_sealed

pytest.importorskip("cryptography")
PATTERN = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").strip()
pytestmark = pytest.mark.skipif(
    PATTERN.startswith("|") or "/" in PATTERN or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0,
    reason=f"SKIPPED: core files go elsewhere ({PATTERN}) or are off for good (ulimit -Hc)",
)
KNOWN = b"patient 4711 has a glucose of 9.3; "
VECTOR_REGISTERS = 32 * 64
PIN = b"hush 7351 pin"

CHILD = """
import os, signal, sys
import hushgrad._core as core
from hushgrad import sealed
from hushgrad.keys import Keyring, Pkcs11
from hushgrad.signing import SigningKey

def crash(*progress):
    os.kill(os.getpid(), signal.SIGSEGV)

identity = SigningKey.load("identity")
keyring = Keyring("keys", passphrase=open("passphrase").read()) if sys.argv[1] == "passphrase" else Keyring("keys")
if sys.argv[1] == "verify":
    core.SealedReader("sealed", keyring._core).verify_all(crash)
elif sys.argv[1] == "seal":
    sealed.seal("plain", "again", keyring=keyring, dataset="icu", identity=identity, progress=crash)
elif sys.argv[1] == "open":
    sealed.open("sealed", "opened", keyring=keyring, progress=crash)
elif sys.argv[1] == "token":
    token = Pkcs11(sys.argv[2], "clinic", pin_file="pin")
    token.create_key(dataset="icu")
    crash()
else:
    careless = open("plain", "rb").read(8192)
    crash()
"""


def core_of(work: str, folder: Path, *more: str) -> bytes:
    """The core file of a process that crashed in the middle of ``work``."""
    resource_limit = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)"
    child = subprocess.run([sys.executable, "-c", resource_limit + CHILD, work, *more], cwd=folder, capture_output=True, check=False)
    assert child.returncode == -11, child.stderr
    (dumped,) = folder.glob("core*")
    content = dumped.read_bytes()
    dumped.unlink()
    assert b"hushgrad" in content
    return content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keyring = Keyring.create(tmp_path / "keys")
    keyring.create_key(dataset="icu", tenant="clinic")
    (tmp_path / "plain").write_bytes(KNOWN * 300_000)
    identity = SigningKey.generate()
    identity.save(tmp_path / "identity")
    sealed.seal(tmp_path / "plain", tmp_path / "sealed", keyring=keyring, dataset="icu", identity=identity)
    return tmp_path


def secrets(folder: Path) -> list[bytes]:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    root, tenants, datasets = opened_keyring(folder / "keys")
    opened = open_sealed(folder / "sealed", lambda key_id, wrapped: aes_key_unwrap_with_padding(datasets[key_id], wrapped))
    identity = load_pem_private_key((folder / "identity").read_bytes(), None)
    assert isinstance(identity, EllipticCurvePrivateKey)
    scalar = identity.private_numbers().private_value
    keys = [root, *tenants.values(), *datasets.values(), *opened.secrets, scalar.to_bytes(48, "big"), scalar.to_bytes(48, "little")]
    return [*keys, *(key.hex().encode() for key in keys)]


@pytest.mark.parametrize("work", ["verify", "seal", "open"])
def test_no_key_and_no_plaintext(work: str, folder: Path) -> None:
    content = core_of(work, folder)
    found = [i for i, secret in enumerate(secrets(folder)) if secret in content]
    assert not found, found
    # The kernel writes the registers too, and the dynamic linker may have laid them on the stack: 2 KiB of vectors each.
    assert content.count(KNOWN) * len(KNOWN) < 2 * VECTOR_REGISTERS


def test_the_search_finds_what_is_there(folder: Path) -> None:
    assert core_of("careless", folder).count(KNOWN) * len(KNOWN) > 2 * VECTOR_REGISTERS


@pytest.mark.skipif(shutil.which("softhsm2-util") is None, reason="SKIPPED: no SoftHSM")
def test_no_pin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [p for p in (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")) if p.exists()]
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n", encoding="utf-8")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    pin = folder / "pin"
    pin.touch(0o600)
    pin.write_bytes(PIN)
    made = ["softhsm2-util", "--init-token", "--free", "--label", "clinic", "--so-pin", "1234", "--pin", PIN.decode()]
    subprocess.run(made, check=True, capture_output=True)
    assert PIN not in core_of("token", folder, str(modules[0]))
