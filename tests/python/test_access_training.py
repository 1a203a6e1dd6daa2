"""Training on a ledger with access rules: nobody trains who has not proven that they may."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

import hushgrad  # noqa: E402
from hushgrad.approval import Approval, Operation, approve  # noqa: E402
from hushgrad.errors import BudgetExceeded, Denied, InvalidArgument, IoError  # noqa: E402
from hushgrad.ledger import Ledger  # noqa: E402
from hushgrad.policy import canonical, sign  # noqa: E402
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


class Clinic:
    """A ledger with an officer, a trainer and an approver, and a policy of one rule about trainings."""

    def __init__(self, folder: Path, **require: Any) -> None:
        self.path = folder / "l.db"
        self.officer, self.trainer, self.approver = (SigningKey.generate() for _ in range(3))
        self.ledger = Ledger(self.path, identity=self.officer)
        self.ledger.found_access("olga")
        for name, key, role in (("tom", self.trainer, "trainer"), ("ann", self.approver, "approver")):
            self.ledger.add_actor(name, key.public_key)
            self.ledger.grant(name, role, expires=timedelta(hours=1))
        policy = canonical({"version": 1, "rule": [{"id": "two", "effect": "allow", "actions": ["train"], "require": require}]})
        signature = sign(policy, self.officer)
        self.ledger.publish_policy(policy, key=signature.key, signature=signature.signature)

    def ask(self, lifetime: timedelta = timedelta(days=1)) -> Operation:
        ledger = Ledger(self.path, identity=self.trainer)
        return ledger.request("train", reason="pilot", identity=self.trainer, lifetime=lifetime, dataset="ward-7", purpose="triage")

    def train(self, *approvals: Any) -> None:
        train(ledger=self.path, dataset="ward-7", purpose="triage", identity=self.trainer, approvals=approvals)


def test_more_than_so_much_epsilon_takes_an_approval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    clinic = Clinic(tmp_path, approvals=1, delta=1e-5, max_epsilon=50.0, max_epsilon_unapproved=0.5)
    with pytest.raises(BudgetExceeded):  # one step of this training takes more than 0.5
        clinic.train()
    assert clinic.ledger.steps() == []
    assert any(record.fields["rule"].startswith("budget:") for record in clinic.ledger.records("audit"))
    operation = clinic.ask()
    clinic.train(operation, approve(operation, clinic.approver))
    assert 0.5 < clinic.ledger.spent(dataset="ward-7", delta=1e-5)[1] <= 50.0
    other = clinic.ask()
    with pytest.raises(BudgetExceeded):  # an approval of one's own is none, and the smaller cap holds
        clinic.train(other, approve(other, clinic.trainer))
    assert clinic.ledger.verify()


def test_expired_approvals_and_broken_glasses_through_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    clinic = Clinic(tmp_path, approvals=1)
    operation = clinic.ask(lifetime=timedelta(seconds=1))
    approval = approve(operation, clinic.approver)
    time.sleep(2.1)
    with pytest.raises(Denied) as denied:
        clinic.train(operation, approval)
    assert denied.value.reason == "expired"
    assert clinic.ledger.records("audit")[-1].fields["decision"] == "denied"
    with pytest.raises(Denied):
        Ledger(clinic.path, identity=clinic.trainer).break_glass("train", dataset="ward-7", reason="an outbreak", duration=timedelta(minutes=5))
    policy = canonical(
        {
            "version": 2,
            "break_glass": {"roles": ["trainer"], "max_minutes": 5},
            "rule": [{"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1}}],
        }
    )
    signature = sign(policy, clinic.officer)
    clinic.ledger.publish_policy(policy, key=signature.key, signature=signature.signature)
    trainer = Ledger(clinic.path, identity=clinic.trainer)
    for wrong in ({"dataset": "ward-8"}, {"dataset": "ward-7", "duration": timedelta(seconds=1)}):
        trainer.break_glass("train", **{"reason": "an outbreak", "duration": timedelta(minutes=5), **wrong})
        time.sleep(2.1)
        with pytest.raises(Denied) as denied:  # of another dataset, or over
            clinic.train()
        assert denied.value.reason == "too_few"
    glass = trainer.break_glass("train", dataset="ward-7", reason="an outbreak", duration=timedelta(minutes=5))
    clinic.train()
    decisions = [record.fields["rule"] for record in clinic.ledger.records("audit") if record.fields["action"] == "train"]
    assert decisions[-1] == f"break_glass:{glass}"
    assert [run.actor for run in clinic.ledger.runs()] == ["tom"]
    assert clinic.ledger.verify()


def test_a_run_takes_the_approvals_that_its_policy_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "l.db"
    officer, trainer, approver = (SigningKey.generate() for _ in range(3))
    ledger = Ledger(path, identity=officer)
    ledger.found_access("olga")
    for name, key, role in (("tom", trainer, "trainer"), ("ann", approver, "approver")):
        ledger.add_actor(name, key.public_key)
        ledger.grant(name, role, expires=timedelta(hours=1))
    rule = {"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1}}
    policy = canonical({"version": 1, "rule": [rule]})
    signature = sign(policy, officer)
    ledger.publish_policy(policy, key=signature.key, signature=signature.signature)

    def run(approvals: Any, **more: Any) -> None:
        train(**{"ledger": path, "dataset": "ward-7", "purpose": "triage", "identity": trainer, "approvals": approvals, **more})

    with pytest.raises(Denied, match="hushgrad approve request train dataset='ward-7' purpose='triage'") as denied:
        run(())
    assert denied.value.reason == "too_few"

    def ask(purpose: str = "triage", by: SigningKey = trainer) -> Operation:
        return Ledger(path, identity=trainer).request("train", reason="pilot", identity=by, dataset="ward-7", purpose=purpose)

    operation = ask()
    approval = approve(operation, approver)
    for papers, match in (
        ([operation], "hushgrad approve sign"),
        ([approval], "the request that it signs"),
        ([ask("billing"), approval], "purpose 'triage'"),
        ([ask(by=approver), approval], "cannot be passed on"),
        (operation, "approvals to be a list"),
        ([7], "received int"),
        (["/dev/zero"], "regular file"),
    ):
        with pytest.raises(InvalidArgument, match=match):
            run(papers)
    with pytest.raises(IoError):
        run([tmp_path / "none.json"])
    with pytest.raises(InvalidArgument, match="identity"):
        run([operation, approval], identity=None)
    for signer, reason in ((trainer, "self_approval"), (officer, "unknown_approver")):
        other = ask()
        with pytest.raises(Denied) as denied:
            run([other, approve(other, signer)])
        assert denied.value.reason == reason
    assert ledger.steps() == []
    operation.save(tmp_path / "request.json")
    approval.save(tmp_path / "ann.json")
    run([tmp_path / "ann.json", str(tmp_path / "request.json")])
    assert [run_.actor for run_ in ledger.runs()] == ["tom"]
    assert ledger.records("approval")[-1].fields["approvers"] == "ann"
    with pytest.raises(Denied) as denied:
        run([operation, Approval.load(tmp_path / "ann.json")])
    assert denied.value.reason == "replayed"
    with pytest.raises(InvalidArgument, match="PrivacyEngine"):
        Ledger(path, identity=trainer).apply(ask(), [approval])
    assert ledger.verify()
