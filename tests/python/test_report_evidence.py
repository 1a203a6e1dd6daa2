"""Evidence for controls: the data files, the questions, and verdicts that are never better than the ledger."""

from __future__ import annotations

import json
from typing import Any

import pytest
from report_ledger import PLAN, full_ledger, run_steps

from hushgrad.accounting import GaussianDpEvent
from hushgrad.errors import InvalidArgument
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger, Record
from hushgrad.report import build, controls, evidence, papers, render
from hushgrad.report.text import WITHHELD, free_text, visible

FILES = sorted(controls.FOLDER.glob("*.json"))
Document = dict[str, Any]


def content(ledger: Ledger) -> Document:
    return build(ledger)["content"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def full() -> Document:
    return content(full_ledger())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_name_questions_that_exist(path: Any) -> None:
    data = json.loads(path.read_text())
    ids = [row["id"] for row in data["rows"]]
    assert len(ids) == len(set(ids))
    for row in data["rows"]:
        assert row["title"] and row["evidence"] and set(row["evidence"]) <= set(evidence.QUERIES), row["id"]


def test_every_question_is_asked_somewhere() -> None:
    asked = {name for path in FILES for row in json.loads(path.read_text())["rows"] for name in row["evidence"]}
    assert asked == set(evidence.QUERIES)


def test_named_rules_are_covered(full: Document) -> None:
    frameworks = {f["framework"]: {row["id"] for row in f["rows"]} for f in full["controls"]}
    assert {"HIPAA Security Rule", "NIST SP 800-53", "NIST SP 800-57 Part 1", "SOC 2 Trust Services Criteria",
            "ISO/IEC 27001 Annex A", "GDPR"} == set(frameworks)  # fmt: skip
    assert {"164.308(a)(1)(ii)(A)", "164.310(d)(2)(i)", "164.312(b)", "164.314(a)(1)", "164.316(b)(2)(i)"} <= frameworks["HIPAA Security Rule"]
    assert {"AU-9(3)", "SI-19(6)", "SC-28(1)", "MP-6"} <= frameworks["NIST SP 800-53"]
    assert "164.504(e)(2)(ii)(J)" in {row["id"] for row in full["agreement"]["rows"]}
    assert {"inversion", "membership", "poisoning", "artefacts"} <= {row["id"] for row in full["risk_register"]["rows"]}


def found(content: Document, name: str) -> str:
    return evidence.ask(name, content).verdict


def test_questions_follow_the_ledger(full: Document) -> None:
    for name in ("chain_verified", "budgets_set", "actors_named", "purposes_limited", "approvals_recorded", "two_people_decide",
                 "policies_versioned", "decisions_logged", "releases_registered", "randomness_secure", "sensitivity_certified"):  # fmt: skip
        assert found(full, name) == "present", name
    for name in ("artefacts_sealed", "keys_inventoried", "destruction_certified", "report_signed", "retention_set", "ledger_durable"):
        assert found(full, name) == "none", name
    assert found(full, "break_glass_accounted") == "not_applicable"
    assert found(full, "oldest_record_kept") == "partial"


def test_one_bad_run_takes_the_verdict_down() -> None:
    ledger = full_ledger()
    run_steps(ledger, "ward-7", purpose="triage", plan={**PLAN, "sensitivity": "empirical", "random": "insecure-seed"})
    seen = content(ledger)
    assert [found(seen, name) for name in ("actors_named", "randomness_secure", "sensitivity_certified")] == ["partial"] * 3
    assert seen["datasets"][0]["privacy"]["sensitivity"] == "empirical" and seen["privacy"]["sensitivity"] == "empirical"
    assert "insecure_randomness" in [warning["code"] for warning in seen["datasets"][0]["warnings"]]


def test_no_noise_is_no_evidence() -> None:
    ledger = Ledger(":memory:")
    run_steps(ledger, "d", GaussianDpEvent(0.0), 1)
    seen = content(ledger)
    assert [found(seen, name) for name in ("privacy_loss_bounded", "noise_added", "attack_bounds_computed", "budgets_set")] == ["none"] * 4


def test_nobody_who_trains_also_approves(full: Document) -> None:
    ledger = full_ledger()
    ledger.record("approval", action="release", actor="m.okafor", reason="mine", subject="x")
    assert found(content(ledger), "two_people_decide") == "partial"


@pytest.mark.parametrize(
    ("verdicts", "combined"),
    [
        (["present", "present"], "present"), (["present", "none"], "partial"), (["partial"], "partial"), (["none", "none"], "none"),
        (["not_applicable"], "not_applicable"), (["not_applicable", "present"], "present"), (["not_applicable", "none"], "none"),
    ],
)  # fmt: skip
def test_verdicts_combine_towards_the_weaker(verdicts: Any, combined: str) -> None:
    assert evidence.combined(verdicts) == combined


def record(kind: str, **fields: str) -> Record:
    from datetime import datetime, timezone

    return Record(kind, fields, 7, datetime(2026, 1, 31, tzinfo=timezone.utc))


def test_unknown_kinds_are_counted_and_shown_by_what_is_known() -> None:
    read = papers.read([record("quantum_seal", actor="ada", digest="ab", loss_curve="3.14", blob="{}"), record("grant", role="trainer")])
    assert read["counts"] == {"grant": 1, "quantum_seal": 1}
    assert read["entries"][0]["fields"] == {"actor": "ada", "digest": "ab"}
    document = build(full_ledger())
    document["content"]["records"] = read
    assert b"quantum seal" in render({**document, "digest": __import__("hushgrad.report.document", fromlist=["digest"]).digest(document["content"])})


@pytest.mark.parametrize("fields", [{"action": "break_glass"}, {"action": "Break-Glass open"}, {"decision": "emergency"}])
def test_break_glass_is_red(fields: dict[str, str]) -> None:
    ledger = full_ledger()
    ledger.record("audit", **{"action": "x", "actor": "ada", "decision": "allow", "policy": "1", "reason": "patient safety", "subject": "s"} | fields)
    document = build(ledger)
    assert "break_glass" in [warning["code"] for warning in document["content"]["warnings"]]
    assert found(document["content"], "break_glass_accounted") == "present"
    page = render(document).decode()
    assert "<strong>Emergency access was used.</strong>" in page and "Emergency access (break-glass) was used once" in page


def test_refusals_are_listed() -> None:
    read = papers.read([record("audit", decision="denied", actor="eve"), record("audit", decision="allow", actor="ada")])
    assert [paper["fields"]["actor"] for paper in read["refused"]] == ["eve"]
    assert read["decisions"] == {"allow": 1, "denied": 1}


def test_texts_are_made_visible_and_statistics_withheld() -> None:
    assert visible("a\u202eb\x00\ud800 é 患者") == "a\\u202eb\\u0000\\ud800 é 患者"
    for text in ("training loss 0.31", "batch sizes: 31, 33", "gradient norm=4", "clip fraction 12 %", "Accuracy was 0.9"):
        assert free_text(text) == WITHHELD
    for text in ("approved for hearing loss research", "ticket 1234", "the loss is checked"):
        assert free_text(text) == text


def test_long_lists_keep_the_newest() -> None:
    read = papers.read([record("audit", decision="allow", subject=str(i)) for i in range(1000)])
    assert len(read["entries"]) == papers.LONGEST_LIST and read["entries"][-1]["fields"]["subject"] == "999"
    assert read["counts"]["audit"] == 1000


def test_with_access_rules(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors are proven, denials are listed, a broken glass is counted once however many decisions stand around it."""
    from test_access import STEP, House

    from hushgrad.errors import Denied

    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    house = House(tmp_path)
    trainer = house.by("tom")
    run = trainer.begin_run(dataset="ward-7")
    trainer.charge(run, STEP)
    with pytest.raises(Denied):
        house.by("axel").charge(run, STEP)
    house.by("olga").break_glass("raise_budget", dataset="ward-7", reason="outbreak")
    document = build(house.by("axel"))
    seen = document["content"]
    for name in ("identities_proven", "access_granted_by_name", "decisions_logged", "refusals_recorded", "break_glass_accounted"):
        assert found(seen, name) == "present", name
    (warning,) = [warning["text"] for warning in seen["warnings"] if warning["code"] == "break_glass"]
    assert "was used once" in warning
    assert [paper["fields"]["actor"] for paper in seen["records"]["refused"]] == ["tom"]
    assert b"outbreak" in render(document)


def test_names_of_approvers_are_those_who_signed() -> None:
    content = {"records": {"entries": papers.read([record("approval", actor="olga", approvers="ann\nbob\n")])["entries"]},
               "datasets": [{"runs": [{"actor": "olga"}]}], "ledger": {"chain": {"ok": True}}}  # fmt: skip
    assert content["records"]["entries"][0]["fields"]["approvers"] == "ann, bob"
    assert evidence.ask("two_people_decide", content) == evidence.Evidence("present", "2 people approved; none of them trained.")


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyring(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    made = Keyring.create(tmp_path / "k.keyring")
    for name in ("ward-7", "ward-8"):
        made.create_key(dataset=name)
    return made


def test_keys_and_certificates_are_evidence(keyring: Keyring) -> None:
    keyring.rotate_key(dataset="ward-7")
    certificate = keyring.shred(dataset="ward-8", reason="end of the agreement", files=["a.sealed"])
    document = build(full_ledger(), keyring=keyring, certificates=[certificate])
    keys = document["content"]["keys"]
    assert sorted((key["dataset"], key["state"]) for key in keys["inventory"]) == [
        ("ward-7", "active"), ("ward-7", "deactivated"), ("ward-8", "destroyed")
    ]  # fmt: skip
    assert keys["log"]["entries_verified"] == len(keyring.verify()) and keys["log"]["actions"]["rotate"] == 1
    (shown,) = keys["certificates"]
    assert shown["verified"] and shown["signer_is_the_keyring"] and shown["files"] == 1 and len(shown["keys"]) == 1
    for name in ("keys_inventoried", "keys_rotated", "destruction_certified"):
        assert found(document["content"], name) == "present", name
    (row,) = [row for row in document["content"]["agreement"]["rows"] if row["id"] == "164.504(e)(2)(ii)(J)"]
    assert row["verdict"] == "present"
    page = render(document)
    assert b"Signed by the keyring." in page and b"end of the agreement" in page and b"a.sealed" not in page


def test_a_certificate_that_nobody_vouches_for_is_partial_and_an_altered_one_nothing(keyring: Keyring) -> None:
    certificate = keyring.shred(dataset="ward-8", reason="end")
    seen = build(full_ledger(), certificates=[certificate])["content"]
    assert found(seen, "destruction_certified") == "partial" and found(seen, "keys_inventoried") == "none"
    altered = json.dumps({**json.loads(certificate), "reason": "another"})
    document = build(full_ledger(), keyring=keyring, certificates=[certificate, altered])
    assert found(document["content"], "destruction_certified") == "none"
    assert b"The signature does not fit." in render(document)
    for wrong in ("", "{}", "[]", '{"format": "hushgrad certificate of destruction 1"}'):
        with pytest.raises(InvalidArgument, match="certificate"):
            build(full_ledger(), certificates=[wrong])


def test_broken_glass_of_keys_is_red(keyring: Keyring) -> None:
    keyring.suspend(dataset="ward-7", reason="lost laptop")
    keyring.break_glass(dataset="ward-7", reason="patient in danger", minutes=5)
    document = build(full_ledger(), keyring=keyring)
    assert "break_glass" in [warning["code"] for warning in document["content"]["warnings"]]
    assert b"<strong>Emergency access to keys</strong>" in render(document) and b"patient in danger" in render(document)


def test_without_keys_the_section_is_empty(full: Document) -> None:
    assert full["keys"] == {"certificates": [], "inventory": [], "log": None}
