"""hushgrad.approval. Attacks on every field are in tests/dpcore/keys/approval_test.cpp."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path

import pytest

from hushgrad.approval import Approval, Operation, approve, check
from hushgrad.errors import Denied, HushgradError, InvalidArgument, IoError
from hushgrad.signing import SigningKey

REQUESTER, ADA, BEN, EVE = (SigningKey.generate("ed25519") for _ in range(4))
APPROVERS = [ADA.public_key, BEN.public_key]


def ask() -> Operation:
    return Operation.request("shred", {"dataset": "icu"}, reason="retention ended", requester=REQUESTER)


def denied(operation: Operation, *approvals: Approval, **rules: object) -> str:
    with pytest.raises(Denied) as caught:
        check(operation, approvals, **{"approvers": APPROVERS, "quorum": 2, **rules})  # type: ignore[arg-type]
    assert isinstance(caught.value, HushgradError) and str(caught.value).startswith("[approval]")
    return caught.value.reason


def test_a_quorum_allows_by_mail(tmp_path: Path) -> None:
    ask().save(tmp_path / "request.json")
    for name, key in (("ada", ADA), ("ben", BEN)):
        approve(Operation.load(tmp_path / "request.json"), key).save(tmp_path / f"{name}.json")
    operation = Operation.load(tmp_path / "request.json")
    approvals = [Approval.load(tmp_path / f"{name}.json") for name in ("ada", "ben")]
    assert check(operation, approvals, approvers=APPROVERS, quorum=2) == sorted([ADA.id, BEN.id])
    operation.check_scope("shred", {"dataset": "icu"}, REQUESTER)
    with pytest.raises(Denied, match="shred-all"):
        operation.check_scope("shred-all", {"dataset": "icu"}, REQUESTER)
    assert json.loads(operation.text)["reason"] == operation.reason == "retention ended"
    assert operation.expires - operation.created == timedelta(days=1)
    with pytest.raises(IoError):
        operation.save(tmp_path / "request.json")
    with pytest.raises(IoError):
        Operation.load(tmp_path / "missing")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(InvalidArgument):
        Approval.load(tmp_path / "bytes")


def test_attacks_are_denied_by_name() -> None:
    operation = ask()
    ada, ben = approve(operation, ADA), approve(operation, BEN)
    assert denied(operation, ada) == "too_few"
    assert denied(operation, ada, ada) == "duplicate_approver"
    assert denied(operation, ada, approve(operation, EVE)) == "unknown_approver"
    assert denied(operation, ada, ben, approvers=APPROVERS[:1]) == "unknown_approver"
    assert denied(operation, ada, ben, now=operation.expires) == "expired"
    assert denied(operation, ada, ben, used_nonces=[operation.nonce]) == "replayed"
    assert denied(ask(), ada, ben) == "altered"
    own = Operation.request("shred", {}, reason="r", requester=ADA)
    assert denied(own, approve(own, ADA), approve(own, BEN)) == "self_approval"


def test_an_edited_request_is_no_request() -> None:
    operation = ask()
    with pytest.raises(InvalidArgument):
        Operation.from_text(json.dumps(json.loads(operation.text), indent=1))
    edited = Operation.from_text(operation.text.replace("icu", "all"))
    assert denied(edited, approve(operation, ADA), approve(operation, BEN)) == "altered"
    forged = dataclasses.replace(operation, scope={"dataset": "all"})
    with pytest.raises(Denied):
        forged.check_scope("shred", {"dataset": "all"}, REQUESTER)
    with pytest.raises(InvalidArgument):
        Operation.request("Shred!", {}, reason="r", requester=REQUESTER)
