"""`hushgrad demo`: what it says happened did happen, with and without PyTorch, and only in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_run import assert_one_error_line, read, run

from hushgrad.ledger import Ledger


def look_at(folder: Path, document: dict[str, object]) -> None:
    ledger = Ledger(folder / "demo.ledger.db", create=False)
    assert ledger.verify()
    first, second = ledger.runs("demo-clinic")
    assert (first.status, first.steps) == ("completed", document["steps"])
    assert (second.steps, second.refusals) == (document["steps_before_refusal"], 1)
    spent = ledger.spent(dataset="demo-clinic", delta=1e-5)[1]
    assert document["epsilon_spent"] == spent <= 3.0
    report = json.loads((folder / "report.json").read_text())
    assert report["content"]["datasets"][0]["budget"]["status"] in ("within", "used_up")


def test_governance_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = read("demo", "--governance")
    assert [path.name for path in tmp_path.iterdir()] == ["hushgrad-demo"]
    assert set(document["files"]) == {"demo.ledger.db", "report.html", "report.json"}
    look_at(tmp_path / "hushgrad-demo", document)
    assert_one_error_line(run("demo", "--governance"), 2, "--folder")


def test_it_says_so_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hushgrad.cli.demo as demo

    monkeypatch.setattr(demo, "_can_train", lambda: False)
    shown = run("demo", "--folder", str(tmp_path / "d")).stdout
    assert "PyTorch is not here" in shown and "hushgrad ledger status" in shown and f"rm -r {tmp_path / 'd'}" in shown


def test_with_training(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("hushgrad._torch")
    folder = tmp_path / "with a space"
    done = run("demo", "--folder", str(folder))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.iterdir()}
    assert {"demo.ledger.db", "demo.keyring", "model.sealed", "report.html", "report.json"} <= names
    ledger = Ledger(folder / "demo.ledger.db", create=False)
    first, second = ledger.runs("demo-clinic")
    assert first.status == "completed" and second.refusals == 1
    assert f"{first.steps} steps were taken" in done.stdout and f"After {second.steps} steps" in done.stdout
    assert f"'{folder}/demo.ledger.db'" in done.stdout
    assert "bit for bit" in done.stdout and "one changed bit did not open" in done.stdout and "altered" not in "".join(names)
