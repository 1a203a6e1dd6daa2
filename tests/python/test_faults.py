"""Every system call of save, replace, re-wrap, rotate, shred, open and of the commands that change keys: killed before and after it,
failing, short. After each the old or the new complete state stands, nothing else, and no file is lost; a key that is gone has its
certificate. tests/faults/ holds the library and the driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "faults"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("SKIPPED: the faults need a C compiler")
    made = tmp_path_factory.mktemp("faults") / "libhushgrad_faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, HERE / "faults.c", "-ldl"], check=True)
    return made


def every_call(library: Path, operation: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, HERE / "every_call.py", operation, folder],
        env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("save", ["openat", "pwrite", "fsync", "renameat2"]),
        ("replace", ["openat", "pwrite", "fsync", "renameat"]),
        ("rewrap", ["pwrite", "fsync"]),
        ("rotate", ["pwrite", "fsync", "renameat"]),
        ("open", ["mkdirat", "openat", "pwrite", "fsync", "renameat2"]),
        ("create", ["openat", "pwrite", "fsync", "renameat2"]),
        ("shred", ["ftruncate", "pwrite", "fsync", "renameat"]),
        ("shred-command", ["pwrite", "fsync", "renameat", "write", "link", "unlink"]),
        ("rotate-command", ["pwrite", "fsync", "renameat"]),
        ("rewrap-command", ["pwrite", "fsync"]),
        ("approve-command", ["write", "fsync", "link", "unlink"]),
    ],
)
def test_old_or_new_complete_state_whatever_call_goes_wrong(library: Path, operation: str, expected: list[str], tmp_path: Path) -> None:
    found = every_call(library, operation, tmp_path)
    assert set(expected) <= set(found["calls"]), "the library no longer sees the calls"
    assert found["points"] >= 7 * len(found["calls"])
    assert found["wrong"] == []
    if operation == "shred":  # the entry in the log, synced; the keyring; the old bytes
        order = [call for call in found["calls"] if call not in ("write", "rename")]  # of the note of what was seen
        assert order == ["openat", "ftruncate", "pwrite", "fsync", "openat", "pwrite", "fsync", "renameat", "fsync", "pwrite", "fsync"]
