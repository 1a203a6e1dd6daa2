"""The migration example: one import apart from a script for Opacus, and as accurate."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")
pytest.importorskip("sklearn", reason="the example's images come with scikit-learn")

FOLDER = Path(__file__).parents[2] / "examples/migration"


def run(script: str, folder: Path) -> tuple[float, float]:
    """(accuracy in percent, epsilon) that the script prints."""
    command = [sys.executable, "-W", "ignore", str(FOLDER / script), "--epochs", "20"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a model this small, threads that wait for each other cost more
    printed = subprocess.run(command, cwd=folder, env=one_thread, capture_output=True, text=True, timeout=300)
    assert printed.returncode == 0, printed.stderr
    found = re.search(r"Test accuracy: ([\d.]+)%\nEpsilon: ([\d.]+)", printed.stdout)
    assert found is not None, printed.stdout
    return float(found.group(1)), float(found.group(2))


def test_one_import_is_the_difference() -> None:
    before, after = ((FOLDER / name).read_text().splitlines()[1:] for name in ("before.py", "after.py"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert changed == ["- from opacus import PrivacyEngine", "+ from hushgrad.compat.opacus import PrivacyEngine"]


def test_the_migrated_script_is_as_accurate_within_the_same_budget(tmp_path: Path) -> None:
    accuracy, epsilon = run("after.py", tmp_path)
    assert accuracy > 70  # chance is 10; three runs gave 90.0, 90.5 and 93.6
    assert 4.8 < epsilon < 5.0
    assert (tmp_path / "hushgrad.ledger.db").exists()
    pytest.importorskip("opacus", reason="the script before the migration needs Opacus")
    their_accuracy, their_epsilon = run("before.py", tmp_path)
    assert abs(accuracy - their_accuracy) < 15  # of one run each; both spread by some points from noise alone
    assert epsilon == pytest.approx(their_epsilon, rel=0.02)
