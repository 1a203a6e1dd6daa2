"""Shared by all Python tests."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def few_threads() -> None:
    """On models this small, threads that wait for each other cost far more than they bring."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
