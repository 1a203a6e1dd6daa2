"""Training that is killed at any moment: no step without its charge, and it goes on where it was.

HUSHGRAD_KILLS sets how many times a training process is killed (default 10).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from charges import charged
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine, checkpoint
from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, epsilon
from hushgrad.keys import Keyring
from hushgrad.ledger import Head, Ledger

KILLS = int(os.environ.get("HUSHGRAD_KILLS", "10"))
DELTA = 1e-5
SAVE_EVERY = 3


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


EVENT = charged(PoissonSampledDpEvent(0.25, GaussianDpEvent(1.0)), 1.0, network())


def train(directory: Path) -> None:
    """Trains for ever. Says in the file "said", unbuffered, what is done: "loaded S", "stepped S", "saved S"."""
    said = os.open(directory / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(word: str, total: int) -> None:
        os.write(said, f"{word} {total}\n".encode())

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=16)
    engine = PrivacyEngine(ledger=directory / "l.db", dataset="ward-7", keyring=directory / "keys")
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    total = 0
    if (directory / "c").exists():
        total = engine.load_checkpoint(directory / "c", module=module, optimizer=optimizer)["total"]
    say("loaded", total)
    while True:
        for features, target in loader:
            optimizer.zero_grad()
            F.mse_loss(module(features), target).backward()
            optimizer.step()
            total += 1
            say("stepped", total)
            if total % SAVE_EVERY == 0:
                engine.save_checkpoint(directory / "c", module=module, optimizer=optimizer, extra={"total": total}, overwrite=True)
                say("saved", total)


@dataclass
class Life:
    loaded: int
    steps: int  # acknowledged
    saved: int  # the latest checkpoint that was acknowledged, or 0


def live(directory: Path, delay: float) -> Life:
    """One training process from its start to SIGKILL, ``delay`` seconds after it has loaded its checkpoint."""
    said = directory / "said"
    said.write_bytes(b"")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "hushgrad.engine"])  # the first optimizer would import the former
    process = context.Process(target=train, args=(directory,), daemon=True)
    process.start()
    deadline = time.monotonic() + 60
    while b"\n" not in said.read_bytes():
        assert process.is_alive() and time.monotonic() < deadline, "training did not start; its message is on stderr"
        time.sleep(0.002)
    time.sleep(delay)
    assert process.is_alive(), "training ended by itself; its message is on stderr"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    words = re.findall(r"^(\w+) (\d+)$", said.read_text(), re.MULTILINE)
    numbers = {kind: [int(n) for word, n in words if word == kind] for kind in ("loaded", "stepped", "saved")}
    (loaded,) = numbers["loaded"]
    return Life(loaded, len(numbers["stepped"]), max(numbers["saved"], default=0))


def test_killed_training_owes_nothing_and_goes_on(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "keys").create_key(dataset="ward-7")
    charges = acknowledged = without_step = saved = 0
    most = 0
    for _ in range(KILLS):
        life = live(tmp_path, random.uniform(0, 0.5))
        assert life.loaded >= saved  # what was reported saved is there
        saved = max(life.loaded, life.saved)

        ledger = Ledger(tmp_path / "l.db", create=False)
        assert ledger.verify()
        steps = ledger.steps(dataset="ward-7")
        added = len(steps) - charges
        # Every step that was taken is charged. What is charged beyond is in the last block, reported as such, and no
        # larger than what the process had taken before it.
        reserved = ledger.runs("ward-7")[-1].reserved
        assert life.steps <= added <= life.steps + reserved
        assert reserved <= life.steps + 2
        most = max(most, added - life.steps)
        assert {step.event for step in steps} <= {EVENT}
        charges, acknowledged, without_step = len(steps), acknowledged + life.steps, without_step + added - life.steps

        if (tmp_path / "c").exists():
            opened = checkpoint.load(tmp_path / "c", keyring=tmp_path / "keys")
            assert opened.state["extra"]["total"] >= saved
            assert opened.state["extra"]["total"] % SAVE_EVERY == 0
            saved = opened.state["extra"]["total"]
            assert ledger.contains(Head(*opened.ledger_head))
    ledger = Ledger(tmp_path / "l.db", create=False)
    assert len(ledger.runs("ward-7")) == KILLS
    assert ledger.spent(dataset="ward-7", delta=DELTA) == epsilon(SelfComposedDpEvent(EVENT, charges), DELTA)
    assert acknowledged > 0 and saved > 0  # the processes did train
    print(
        f"\n{KILLS} kills: {charges} charges, {acknowledged} acknowledged steps, {without_step} reserved or under way "
        f"when the process died (at most {most} by one kill), {saved} steps in the last checkpoint"
    )
