"""What keys leave behind on disk and in shared memory when a process aborts: no passphrase, no data key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PASSPHRASE = "correct horse battery staple, and 7 more"

CHILD = f"""
import os, sys
import hushgrad._core as core
from hushgrad.keys import Keyring
keyring = Keyring.create(sys.argv[1], passphrase={PASSPHRASE!r})
keyring.create_key(dataset="icu")
keyring.rotate_key(dataset="icu")
keyring.protect(passphrase={PASSPHRASE!r} + "!")
wrapped = core.wrap_for_testing(keyring._core, "icu", bytes(range(64, 96)))
assert core.unwraps_to_for_testing(keyring._core, *wrapped, bytes(range(64, 96)))
os.abort()
"""


def test_nothing_secret_is_left_on_disk_or_in_shared_memory(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    state = tmp_path / "state"
    environment = {**os.environ, "HUSHGRAD_STATE_DIR": str(state)}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "k")], env=environment, capture_output=True, check=False
    )
    assert child.returncode == -6, child.stderr
    secrets = [PASSPHRASE.encode(), bytes(range(64, 96)), bytes(range(64, 96)).hex().encode()]
    places = [path for path in tmp_path.rglob("*") if path.is_file()]
    places += [Path("/dev/shm") / name for name in set(os.listdir("/dev/shm")) - before]
    assert len(places) >= 3
    for place in filter(Path.exists, places):  # other processes come and go in shared memory
        content = place.read_bytes()
        assert not any(secret in content for secret in secrets), place
    assert all(secret not in child.stdout + child.stderr for secret in secrets)
