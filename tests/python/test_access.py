"""Actors, grants, policies, approvals and tokens, from Python and from the command line."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hushgrad import policy
from hushgrad.access import digest_of, role_table
from hushgrad.accounting import GaussianDpEvent
from hushgrad.approval import approve
from hushgrad.errors import Denied, InvalidArgument, InvalidState
from hushgrad.ledger import Dataset, Ledger
from hushgrad.signing import SigningKey

STEP = GaussianDpEvent(20.0)


class House:
    """A ledger with an officer, a trainer and an approver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "l.db"
        self.keys = {name: SigningKey.generate() for name in ("olga", "tom", "ann", "axel")}
        for name, key in self.keys.items():
            key.save(folder / f"{name}.key")
            (folder / f"{name}.pub").write_text(key.public_key.pem)
        officer = Ledger(self.path, identity=self.keys["olga"])
        officer.found_access("olga")
        for name, role in (("tom", "trainer"), ("ann", "approver"), ("axel", "auditor")):
            officer.add_actor(name, self.keys[name].public_key, team="icu")
            officer.grant(name, role, expires=timedelta(hours=1))

    def by(self, name: str) -> Ledger:
        return Ledger(self.path, create=False, identity=self.folder / f"{name}.key")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    return House(tmp_path)


def test_who_trains_is_proven(house: House) -> None:
    ledger = house.by("tom")
    run = ledger.begin_run(dataset="ward-7")
    ledger.charge(run, STEP)
    assert (ledger.run(run).actor, ledger.run(run).team) == ("tom", "icu")
    for other in (Ledger(house.path), house.by("axel"), house.by("olga")):
        with pytest.raises(Denied) as caught:
            other.charge(run, STEP)
        assert caught.value.reason == "no_proof"
    last = ledger.records("audit")[-1].fields
    assert (last["decision"], last["action"], last["subject"], last["rule"]) == ("denied", "train", "ward-7", "proof")
    assert ledger.run(run).steps == 1
    assert ledger.verify()


def test_a_ledger_without_rules_asks_nobody(tmp_path: Path) -> None:
    ledger = Ledger(":memory:", identity=SigningKey.generate())
    assert not ledger.has_access_rules and ledger.actor == ""
    run = ledger.begin_run(dataset="d", actor="anybody")
    ledger.charge(run, STEP)
    with pytest.raises(InvalidState):
        ledger.add_actor("x", SigningKey.generate().public_key)


def test_access_can_be_read(house: House) -> None:
    access = house.by("axel").access()
    assert [actor.name for actor in access.actors] == ["olga", "tom", "ann", "axel"]
    assert {(grant.name, grant.role) for grant in access.grants if grant.active} >= {("tom", "trainer"), ("ann", "approver")}
    assert role_table()["raise_budget"] == ["privacy_officer"]


def test_raising_a_budget_is_asked_signed_and_done_once(house: House) -> None:
    officer = house.by("olga")
    officer.set_budget(dataset="ward-7", epsilon=1.0, delta=1e-6)
    with pytest.raises(Denied, match="somebody else"):
        officer.set_budget(dataset="ward-7", epsilon=2.0, delta=1e-6)
    fields = {"dataset": "ward-7", "epsilon": "2", "delta": "1e-6"}
    operation = officer.request("raise_budget", reason="second cohort", identity=house.keys["olga"], **fields)
    assert operation.scope["epsilon"] == "2.0"
    with pytest.raises(Denied) as caught:
        officer.apply(operation, [approve(operation, house.keys["tom"])])
    assert caught.value.reason == "unknown_approver"
    approvals = [approve(operation, house.keys["ann"])]
    house.by("olga").apply(operation, approvals)
    assert officer.budget("ward-7").epsilon == 2.0  # type: ignore[union-attr]
    officer.set_budget(dataset="ward-7", epsilon=0.5, delta=1e-6)
    with pytest.raises(Denied) as caught:
        house.by("olga").apply(operation, approvals)
    assert caught.value.reason == "replayed"
    with pytest.raises(InvalidArgument, match="set_budget"):
        officer.request("raise_budget", reason="r", identity=house.keys["olga"], dataset="other", epsilon="2", delta="1e-6")


def test_purposes_and_models_take_two(house: House) -> None:
    officer, trainer = house.by("olga"), house.by("tom")
    officer.describe_dataset(Dataset("ward-7", purposes=("triage",)))
    operation = officer.request("add_purpose", reason="study", identity=house.keys["olga"], dataset="ward-7", purpose="billing")
    officer.apply(operation, [approve(operation, house.keys["ann"])])
    assert officer.dataset("ward-7").purposes == ("triage", "billing")  # type: ignore[union-attr]
    run = trainer.begin_run(dataset="ward-7", purpose="triage")
    weights = house.folder / "weights.pt"
    weights.write_bytes(b"weights")
    with pytest.raises(Denied):
        trainer.release("model", artifact="weights.pt", digest=digest_of(weights), run=run)
    fields = {"artifact": "weights.pt", "digest": digest_of(weights), "run": run, "recipient": "acme"}
    operation = trainer.request("export_model", reason="contract 7", identity=house.keys["tom"], **fields)
    trainer.apply(operation, [approve(operation, house.keys["ann"])])
    assert trainer.records("release")[-1].fields["recipient"] == "acme"
    trainer.release("metrics", artifact="auc", run=run)
    with pytest.raises(InvalidArgument):
        trainer.release("painting", artifact="auc", run=run)


def test_break_glass_is_reviewed(house: House) -> None:
    officer = house.by("olga")
    officer.set_budget(dataset="ward-7", epsilon=1.0, delta=1e-6)
    glass = officer.break_glass("raise_budget", dataset="ward-7", reason="epidemic", duration=timedelta(minutes=5))
    officer.set_budget(dataset="ward-7", epsilon=2.0, delta=1e-6)
    assert officer.records("audit")[-1].fields["rule"] == f"break_glass:{glass}"
    with pytest.raises(Denied):
        officer.review(glass, "justified")
    house.by("axel").review(glass, "justified", reason="there was one")
    assert officer.access().broken_glasses[0].reviewed


def test_exports_are_for_officers_and_auditors(house: House, tmp_path: Path) -> None:
    with pytest.raises(Denied):
        list(house.by("tom").export())
    lines = list(house.by("axel").export())
    assert Ledger.import_lines(tmp_path / "copy.db", lines).verify()


def published(house: House, document: dict[str, Any]) -> None:
    text = policy.canonical(document)
    signature = policy.sign(text, house.keys["olga"])
    house.by("olga").publish_policy(text, key=signature.key, signature=signature.signature)


def test_a_policy_denies_what_it_does_not_allow(house: House) -> None:
    requirements = {"min_noise_multiplier": 1.0, "sensitivity": ["certified"]}
    rule = {"id": "wards", "effect": "allow", "actions": ["train"], "datasets": ["ward-*"], "require": requirements}
    published(house, {"version": 1, "rule": [rule]})
    trainer = house.by("tom")
    plan = {"noise_multiplier": 1.1, "sensitivity": "certified"}
    trainer.begin_run(dataset="ward-7", plan=plan)
    for dataset, other in (("lab", plan), ("ward-7", {**plan, "noise_multiplier": 0.9}), ("ward-7", {**plan, "sensitivity": "empirical"}),
                           ("ward-7", {**plan, "random": "insecure-seed"}), ("ward-7", {})):  # fmt: skip
        with pytest.raises(Denied):
            trainer.begin_run(dataset=dataset, plan=other)
    decision = trainer.test_access("train", actor="tom", dataset="lab", plan=plan)
    assert (decision.allowed, decision.rule, decision.policy) == (False, "policy:default", "1")
    open_policy = policy.canonical({"version": 2, "rule": [{"id": "all", "effect": "allow"}]})
    assert trainer.test_access("train", actor="tom", dataset="lab", policy_json=open_policy)


def test_the_example_and_the_schema_agree_with_the_parser(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(policy.schema())
    file = tmp_path / "p.toml"
    file.write_text(policy.EXAMPLE)
    example = json.loads(policy.load(file))
    validator.validate(example)
    yaml = pytest.importorskip("yaml")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(example))
    assert policy.load(tmp_path / "p.yaml") == policy.load(file)
    changes: list[Any] = [
        {"version": 0}, {"version": "1"}, {}, {"version": 1, "x": 1}, {"version": 1, "rule": [{"id": "a"}]},
        {"version": 1, "rule": [{"id": "a", "effect": "deny", "require": {}}]}, {"version": 1, "rule": [{"id": "a", "effect": "allow", "actions": []}]},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "hours": "8-18"}]}, {"version": 1, "grants": {"max_hours": 0}},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {"max_epsilon": 1}}]},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {"delta": 2, "max_epsilon": 1}}]},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {"delta": 0.1, "max_epsilon": 1, "max_epsilon_unapproved": 0.5}}]},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {"approvals": 1, "max_epsilon_unapproved": 0.5}}]},
        {"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {
            "approvals": 1, "delta": 0.1, "max_epsilon": 1, "max_epsilon_unapproved": -1}}]},
    ]  # fmt: skip
    for document in changes:
        assert not validator.is_valid(document), document
        with pytest.raises(InvalidArgument):
            policy.canonical(document)
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InvalidArgument):
        policy.load(tmp_path / "evil.yaml")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InvalidArgument):
        policy.load(tmp_path / "deep.json")


NAMES = ["'; DROP TABLE entry; --", '"; DELETE FROM entry; --', "../../etc/passwd", "${HOME}", "%s%n", "a\\", "*", "ward*", "é", "e\u0301", "医院", "🏥", "{}", "[red]x[/red]", "a|b"]  # fmt: skip


def test_no_name_is_more_than_a_name(house: House) -> None:
    officer = house.by("olga")
    for number, name in enumerate(NAMES):
        key = SigningKey.generate()
        officer.add_actor(name, key.public_key, team=name)
        officer.grant(name, "trainer", dataset=f"d{number}-*", purpose=name, expires=timedelta(hours=1), reason=name)
        ledger = Ledger(house.path, identity=key)
        run = ledger.begin_run(dataset=f"d{number}-{name}", purpose=name)
        assert ledger.run(run).actor == name
        with pytest.raises(Denied):
            ledger.begin_run(dataset="other", purpose=name)
    for bad in ("", " a", "a\n", "a\x00", "a\u202eb", "\ud800", "x" * 257):
        with pytest.raises((InvalidArgument, TypeError)):  # a lone surrogate is no text
            officer.add_actor(bad, SigningKey.generate().public_key)
    assert officer.verify()
    assert len(officer.access().actors) == 4 + len(NAMES)


# Command line -----------------------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from hushgrad.cli import _run

    code = _run(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_command_line_from_nothing_to_a_raised_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    for name in ("olga", "ann"):
        key = SigningKey.generate()
        key.save(f"{name}.key")
        Path(f"{name}.pub").write_text(key.public_key.pem)

    def done(*arguments: str) -> Any:
        code, out, err = call(capsys, *arguments)
        assert code == 0, err
        return json.loads(out) if "--json" in arguments else out

    officer = ("--identity", "olga.key")
    done("ledger", "init")
    done("access", "init", "--name", "olga", *officer)
    done("access", "add-actor", "ann", "--key", "ann.pub", *officer)
    done("access", "grant", "ann", "approver", "--for", "1", *officer)
    done("ledger", "set-budget", "--dataset", "ward-7", "--epsilon", "1", "--delta", "1e-6", "--warning", "0.5", *officer)
    done("ledger", "set-budget", "--dataset", "ward-7", "--epsilon", "1", "--delta", "1e-6", "--period", "quarter", "--team", "icu", *officer)
    raised = ("ledger", "set-budget", "--dataset", "ward-7", "--epsilon", "3", "--delta", "1e-6")
    assert call(capsys, *raised)[0] == 3
    assert call(capsys, *raised, *officer)[0] == 3
    done("approve", "request", "raise_budget", "dataset=ward-7", "epsilon=3", "delta=1e-6", "warning=0.5", "--reason", "cohort", *officer)
    assert "ward-7" in done("approve", "show", "request.json")
    signed = done("approve", "sign", "request.json", "--identity", "ann.key", "--json")
    done("approve", "apply", "request.json", signed["path"], *officer)
    assert call(capsys, "approve", "apply", "request.json", signed["path"], *officer)[0] == 3
    row = done("ledger", "status", "--json")["datasets"][0]
    assert row["budget"]["epsilon"] == 3
    assert {part["covers"] for part in row["budgets"]} == {"all runs", "team icu, this quarter"}
    assert "team icu, this quarter" in done("ledger", "status")

    done("policy", "init")
    done("policy", "check", "policy.toml", "--json")
    assert call(capsys, "policy", "publish", "policy.toml", *officer)[0] == 2
    done("policy", "sign", "policy.toml", *officer)
    code, out, _ = call(capsys, "policy", "test", "policy.toml", "--actor", "ann", "--action", "train", "--dataset", "ward-7")
    assert code == 3 and "rule role" in out
    done("policy", "publish", "policy.toml", *officer)
    assert done("policy", "show", "--json")["policy"]["version"] == 1
    assert done("policy", "diff", "policy.toml", "--json")["same"]
    code, out, _ = call(capsys, "policy", "test", "--actor", "olga", "--action", "raise_budget", "--dataset", "ward-7", "--json")
    assert code == 3 and json.loads(out)["word"] == "too_few"
    code, out, _ = call(capsys, "policy", "test", "--actor", "olga", "--action", "set_budget", "--dataset", "ward-7", "--json")
    assert code == 0 and json.loads(out)["rule"] == "policy:the-rest-by-role"

    done("access", "break-glass", "raise_budget", "--reason", "epidemic", "--for", "5", *officer)
    assert "waits for a review" in done("ledger", "status")
    assert len(done("access", "list", "--json")["break_glass"]) == 1
    assert "olga" in done("access", "list")
    done("access", "roles", "--json")
    assert call(capsys, "access", "revoke", "actor:olga", *officer)[0] == 2
    done("access", "revoke", "actor:ann", *officer)
    done("ledger", "release", "metrics", "--artifact", "auc", "--dataset", "ward-7", *officer)
    assert done("ledger", "releases", "--json")[0]["artifact"] == "auc"
    done("ledger", "history", "--json")
    done("ledger", "verify")


def test_times_are_utc() -> None:
    from hushgrad.access import _text

    assert _text(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T00:00:00Z"
    with pytest.raises(InvalidArgument):
        _text(datetime(2026, 1, 1))
