"""Shared by all Python tests."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

# What the tests see of their ledgers is nothing that this user should remember.
os.environ["HUSHGRAD_STATE_DIR"] = tempfile.mkdtemp(prefix="hushgrad_state_")


@pytest.fixture(autouse=True, scope="module")
def few_threads() -> None:
    """On models this small, threads that wait for each other cost far more than they bring."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
