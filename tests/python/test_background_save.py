"""Saves that go on while training does: what is saved, when errors show, and that an exit loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from hushgrad import checkpoint
from hushgrad.errors import IoError
from hushgrad.keys import Keyring


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="ward-7")
    return made


def start(path: Path, state: Any, keyring: Keyring, **options: Any) -> checkpoint.Saving:
    return checkpoint.save_async(path, state, keyring=keyring, dataset="ward-7", **options)


def test_what_is_saved_is_the_state_at_the_call(keyring: Keyring, tmp_path: Path) -> None:
    weights, tail = torch.zeros(4 * 2**20), torch.zeros(8)[2:5]
    state = {"w": weights, "view": weights[:3], "t": tail, "n": [1]}
    hold = threading.Event()
    saving = start(tmp_path / "c", state, keyring, before_publish=lambda digest: hold.wait())
    weights.fill_(1)
    tail.fill_(1)
    assert not saving.done() and "running" in repr(saving)
    with pytest.raises(TimeoutError):
        saving.wait(0.01)
    hold.set()
    digest = saving.wait()
    assert saving.done() and checkpoint.inspect(tmp_path / "c").digest == digest
    loaded = checkpoint.load(tmp_path / "c", keyring=keyring).state
    assert not loaded["w"].any() and not loaded["t"].any()
    second = start(tmp_path / "d", state, keyring)
    second.wait()
    assert checkpoint.load(tmp_path / "d", keyring=keyring).state["w"].all()


def test_a_load_waits_for_the_save_to_its_path(keyring: Keyring, tmp_path: Path) -> None:
    hold = threading.Event()
    saving = start(tmp_path / "c", {"n": 1}, keyring, before_publish=lambda digest: hold.wait())
    with pytest.raises(IoError):
        checkpoint.load(tmp_path / "other", keyring=keyring)  # another path does not wait
    assert not saving.done()
    threading.Timer(0.2, hold.set).start()
    assert checkpoint.load(tmp_path / "c", keyring=keyring).state == {"n": 1}


def test_one_save_at_a_time_in_order(keyring: Keyring, tmp_path: Path) -> None:
    order: list[int] = []
    savings = [start(tmp_path / f"{i}", {"n": i}, keyring, before_publish=lambda digest, i=i: order.append(i)) for i in range(5)]
    assert [len(s.wait()) for s in savings] == [96] * 5
    assert order == [0, 1, 2, 3, 4]


def test_an_error_shows_in_wait_and_else_at_the_next_save(keyring: Keyring, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("mine")
    saving = start(tmp_path / "c", {"w": torch.ones(3)}, keyring)
    with pytest.raises(IoError):
        saving.wait()
    with pytest.raises(IoError):
        saving.wait()
    start(tmp_path / "d", 1, keyring).wait()  # it was seen
    lost = start(tmp_path / "c", 1, keyring)
    with pytest.raises(IoError, match="c"):
        checkpoint.save(tmp_path / "e", 1, keyring=keyring, dataset="ward-7")
    assert lost.done() and not (tmp_path / "e").exists()
    checkpoint.save(tmp_path / "e", 1, keyring=keyring, dataset="ward-7")
    assert (tmp_path / "c").read_text() == "mine"


EXIT = """
import sys, torch
from hushgrad import checkpoint
folder, name = sys.argv[1:]
checkpoint.save_async(f"{folder}/{name}", {"w": torch.ones(8 * 2**20)}, keyring=f"{folder}/keys", dataset="ward-7")
"""


def test_an_exit_finishes_the_save_and_prints_its_error(keyring: Keyring, tmp_path: Path) -> None:
    def run(name: str) -> str:
        return subprocess.run([sys.executable, "-c", EXIT, str(tmp_path), name], capture_output=True, text=True, check=True).stderr

    assert "failed" not in run("c")
    assert checkpoint.load(tmp_path / "c", keyring=keyring).state["w"].all()
    assert "hushgrad: the background save of" in run("c")


def test_a_forked_child_saves_by_itself(keyring: Keyring, tmp_path: Path) -> None:
    start(tmp_path / "c", {"w": torch.ones(3)}, keyring).wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if checkpoint._background._last is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
