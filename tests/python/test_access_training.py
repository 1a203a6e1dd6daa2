"""Training on a ledger with access rules: nobody trains who has not proven that they may."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

import hushgrad  # noqa: E402
from hushgrad.errors import Denied  # noqa: E402
from hushgrad.ledger import Ledger  # noqa: E402
from hushgrad.signing import SigningKey  # noqa: E402


def train(**engine: Any) -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.zeros(64, 1))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    engine_ = hushgrad.PrivacyEngine(**engine)
    model, optimizer, loader = engine_.make_private(
        module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    engine_.finish()


def test_only_whoever_may_train_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "l.db"
    officer, trainer = SigningKey.generate(), SigningKey.generate()
    trainer.save(tmp_path / "tom.key")
    ledger = Ledger(path, identity=officer)
    ledger.found_access("olga")
    ledger.add_actor("tom", trainer.public_key, team="icu")
    ledger.grant("tom", "trainer", dataset="ward-*", expires=timedelta(hours=1))
    for wrong in ({}, {"identity": officer}, {"identity": trainer, "dataset": "lab"}, {"identity": trainer, "actor": "olga"}):
        with pytest.raises(Denied):
            train(**{"ledger": path, "dataset": "ward-7", **wrong})
    assert ledger.steps() == []
    train(ledger=path, dataset="ward-7", identity=tmp_path / "tom.key")
    (run,) = ledger.runs()
    assert (run.actor, run.team) == ("tom", "icu") and run.steps >= 1
    assert ledger.verify()
