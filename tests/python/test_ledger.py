"""hushgrad.ledger: what Python adds to the C++ ledger, and the file format read without the SDK."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hushgrad import errors
from hushgrad.accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    epsilon,
)
from hushgrad.ledger import Dataset, Ledger, make_note_keys

STEP = PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0))
DELTA = 1e-5


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "l.db")


def begin(ledger: Ledger, dataset: str = "mimic") -> str:
    return ledger.begin_run(dataset=dataset, purpose="model", actor="ada", plan={"epochs": 3, "rate": 0.1})


def test_what_is_charged_is_spent_and_kept(ledger: Ledger) -> None:
    run = begin(ledger)
    for _ in range(3):
        ledger.charge(run, STEP)
    ledger.finish_run(run, "failed")
    again = Ledger(ledger.path, create=False)
    assert again.spent(dataset="mimic", delta=DELTA) == epsilon(SelfComposedDpEvent(STEP, 3), DELTA)
    assert again.spent(dataset="mimic", delta=DELTA) == again.run_spent(run, DELTA)
    assert again.history("mimic") == ComposedDpEvent([SelfComposedDpEvent(STEP, 3)])
    assert again.run_history(run) == again.history("mimic")
    assert again.id == ledger.id
    assert again.verify()


def test_rows_are_frozen_and_typed(ledger: Ledger) -> None:
    before = datetime.now(timezone.utc)
    ledger.set_budget(dataset="mimic", epsilon=2.5, delta=DELTA)
    run = begin(ledger)
    ledger.charge(run, STEP)
    ledger.finish_run(run)

    budget = ledger.budget("mimic")
    assert budget is not None
    assert (budget.epsilon, budget.delta, budget.sequence) == (2.5, DELTA, 2)
    (row,) = ledger.runs("mimic")
    assert row == ledger.run(run)
    assert (row.run_id, row.dataset, row.purpose, row.actor) == (run, "mimic", "model", "ada")
    assert (row.plan, row.status, row.steps, row.refusals) == ({"epochs": 3, "rate": 0.1}, "completed", 1, 0)
    assert row.finished is not None
    assert before - timedelta(seconds=1) <= row.started <= row.finished <= datetime.now(timezone.utc) + timedelta(seconds=1)
    (step,) = ledger.steps(run=run)
    assert (step.run_id, step.dataset, step.event, step.count) == (run, "mimic", STEP, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.count = 2  # type: ignore[misc]
    assert ledger.datasets() == ["mimic"]
    assert ledger.budget("other") is None


def test_steps_are_one_row_a_charge_and_can_be_narrowed(ledger: Ledger) -> None:
    one, two = begin(ledger, "a"), begin(ledger, "b")
    for run in (one, two, one):
        ledger.charge(run, STEP)
    assert len(ledger.steps()) == 3
    assert len(ledger.steps(dataset="a")) == 2
    assert [step.run_id for step in ledger.steps(run=two)] == [two]
    assert ledger.steps(dataset="a", run=two) == []
    assert ledger.steps(dataset="unknown") == []


def test_steps_in_blocks_are_spent_at_once_and_settled_at_the_end(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path / "l.db"), Ledger(tmp_path / "l.db")
    run = begin(ledger)
    for _ in range(4):  # blocks of 1, 2 and 4
        ledger.charge_step(run, STEP)
    row = other.run(run)
    assert (row.steps, row.reserved, len(other.steps())) == (7, 4, 7)
    assert other.spent(dataset="mimic", delta=DELTA) == epsilon(SelfComposedDpEvent(STEP, 7), DELTA)
    assert ledger.run_spent(run, DELTA) == epsilon(SelfComposedDpEvent(STEP, 4), DELTA)
    ledger.settle()
    assert (other.run(run).steps, other.run(run).reserved) == (4, 0)
    ledger.limit_block(1)
    ledger.charge_step(run, STEP)
    assert other.run(run).steps == 5
    ledger.charge_step(run, STEP)
    ledger.charge_step(run, STEP)
    ledger.finish_run(run)
    assert (other.run(run).steps, other.run(run).reserved) == (7, 0)


def test_a_program_that_ends_settles_and_one_that_is_killed_does_not(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    for end, steps, reserved in (("", 4, 0), ("import os; os._exit(0)", 7, 4)):
        ledger = Ledger(path)
        run = begin(ledger)
        program = (
            "import sys; from hushgrad.ledger import Ledger; from hushgrad.accounting import GaussianDpEvent\n"
            "ledger = Ledger(sys.argv[1])\n"
            f"for _ in range(4): ledger.charge_step(sys.argv[2], GaussianDpEvent(50.0))\n{end}"
        )
        subprocess.run([sys.executable, "-c", program, str(path), run], check=True)
        assert (ledger.run(run).steps, ledger.run(run).reserved) == (steps, reserved)


def test_the_budget_refuses_and_says_why(ledger: Ledger) -> None:
    ledger.set_budget(dataset="mimic", epsilon=1.0, delta=DELTA)
    run = begin(ledger)
    with pytest.raises(errors.BudgetExceeded, match="'mimic'.*epsilon 1 at delta 1e-05.*raise the budget"):
        ledger.charge(run, GaussianDpEvent(0.5))
    assert ledger.spent(dataset="mimic", delta=DELTA) == (0.0, 0.0)
    assert ledger.steps() == []
    assert ledger.run(run).refusals == 1


def test_no_noise_is_infinite(ledger: Ledger) -> None:
    ledger.charge(begin(ledger), GaussianDpEvent(0.0))
    assert math.isinf(ledger.spent(dataset="mimic", delta=DELTA)[1])


@pytest.mark.parametrize("name", ["Charité", "病院", 'x"; DROP TABLE entry; --', "a" * 256])
def test_names_come_back_as_given(ledger: Ledger, name: str) -> None:
    run = begin(ledger, name)
    assert ledger.datasets() == [name]
    assert ledger.run(run).dataset == name


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", " a", "a" * 257, "\u202ea", "é" * 129])
def test_bad_names_are_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        begin(ledger, name)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize("plan", [{"x": math.nan}, {"x": object()}, {"x": "y" * 2**20}, {"\ud800": 1}])
def test_bad_plans_are_refused(ledger: Ledger, plan: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        ledger.begin_run(dataset="d", plan=plan)


def test_errors_are_of_the_taxonomy(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument):
        ledger.charge("unknown", STEP)
    with pytest.raises(errors.InvalidArgument):
        ledger.set_budget(dataset="d", epsilon=math.nan, delta=DELTA)
    with pytest.raises(errors.LedgerError):
        Ledger(tmp_path / "none.db", create=False)
    with pytest.raises(errors.IoError):
        Ledger(tmp_path / "none" / "l.db")
    run = begin(ledger)
    ledger.finish_run(run)
    with pytest.raises(errors.InvalidState):
        ledger.charge(run, STEP)


def test_memory_is_not_durable() -> None:
    ledger = Ledger(":memory:")
    assert not ledger.durable
    assert ledger.path == ":memory:"


def documented_check(path: str) -> list[str]:
    """The ten lines of docs/ledger.md, returning the kinds."""

    def u64(number: int) -> bytes:
        return number.to_bytes(8, "big")

    def field(text: bytes) -> bytes:
        return u64(len(text)) + text

    previous = bytes(48)
    kinds = []
    rows = sqlite3.connect(path).execute("SELECT * FROM entry ORDER BY sequence")
    for number, (sequence, time, kind, payload, before, digest) in enumerate(rows, 1):
        text = field(b"hushgrad ledger entry 1") + u64(sequence) + u64(time) + field(kind.encode())
        text += field(payload.encode()) + field(previous)
        assert sequence == number
        assert before == previous
        assert hashlib.sha384(text).digest() == digest
        assert json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == payload
        previous = digest
        kinds.append(kind)
    return kinds


def test_the_file_is_as_documented(ledger: Ledger) -> None:
    ledger.set_budget(dataset="Charité", epsilon=0.5, delta=1e-7)
    run = begin(ledger, "Charité")
    ledger.charge(run, GaussianDpEvent(100.5))
    with pytest.raises(errors.BudgetExceeded):
        ledger.charge(run, GaussianDpEvent(0.1))
    ledger.finish_run(run)
    head, path = ledger.head(), ledger.path
    del ledger  # one copy of SQLite at a time
    assert documented_check(path) == ["genesis", "budget", "run", "event", "charge", "refusal", "finish"]
    last = Ledger(path).entries()[-1]
    assert (last.sequence, last.hash) == (head.sequence, head.hash)


def test_tampering_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "l.db")
    ledger = Ledger(path)
    run = begin(ledger)
    ledger.charge(run, STEP)
    head = ledger.head()
    assert ledger.contains(head)
    assert ledger.verify()
    del ledger
    with sqlite3.connect(path) as raw:
        guards = [sql for (sql,) in raw.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY rowid")]
        raw.executescript("DROP TRIGGER entry_appends; DROP TRIGGER entry_is_kept; DROP TRIGGER entry_is_final;")
        raw.execute("UPDATE entry SET payload = CAST(x'ff' AS TEXT) WHERE sequence = 3")
        raw.executescript(";".join(guards) + ";")
    raw.close()
    ledger = Ledger(path)
    verdict = ledger.verify()
    assert not verdict
    assert (verdict.first_bad, verdict.entries) == (3, 2)
    assert "hash" in verdict.reason
    assert len(ledger.entries()) == 4
    with pytest.raises(errors.LedgerError, match="entry 3"):
        ledger.charge(run, STEP)
    with pytest.raises(errors.LedgerError):
        ledger.spent(dataset="mimic", delta=DELTA)


def test_threads_may_share_a_ledger(ledger: Ledger) -> None:
    run = begin(ledger)

    def work() -> None:
        for _ in range(5):
            ledger.charge(run, STEP)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.run(run).steps == 20
    assert ledger.verify()


def test_a_forked_child_must_open_its_own(ledger: Ledger) -> None:
    run = begin(ledger)
    child = os.fork()
    if child == 0:
        try:
            ledger.charge(run, STEP)
        except errors.LedgerError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    ledger.charge(run, STEP)


def test_events_of_every_kind_cross_the_boundary(ledger: Ledger) -> None:
    events: list[DpEvent] = [
        GaussianDpEvent(0.1 + 0.2),
        SelfComposedDpEvent(STEP, 2**40),
        ComposedDpEvent([STEP, GaussianDpEvent(5e-324)]),
    ]
    run = begin(ledger)
    for event in events:
        ledger.charge(run, event)
    assert [step.event for step in ledger.steps()] == events


def test_works_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from hushgrad.ledger import Ledger\n"
        f"print(Ledger({str(tmp_path / 'l.db')!r}).head().sequence)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_descriptions_caps_on_parts_and_papers(ledger: Ledger) -> None:
    ledger.describe_dataset(Dataset("raw", unit="patient", purposes=("triage",)))
    until = datetime(2100, 1, 1, tzinfo=timezone.utc)
    made = Dataset("clean", "patient", "replace_one", "1e4", ("triage",), until, ("raw",), "dedup v2", "ada")
    ledger.describe_dataset(made)
    assert ledger.dataset("clean") == made
    assert ledger.dataset("none") is None
    ledger.set_budget(dataset="raw", epsilon=2, delta=DELTA, purpose="triage", warning=1.5, set_by="eve")
    assert ledger.budget("raw") is None
    (cap,) = ledger.budgets("raw")
    assert (cap.epsilon, cap.warning, cap.purpose, cap.actor) == (2, 1.5, "triage", "")
    run = ledger.begin_run(dataset="clean", purpose="triage")
    ledger.charge(run, STEP)
    assert len(ledger.steps("raw")) == 1
    with pytest.raises(errors.BudgetExceeded, match="'raw'"):
        ledger.charge(run, GaussianDpEvent(0.4))
    with pytest.raises(errors.InvalidState, match="not for this purpose"):
        ledger.begin_run(dataset="clean", purpose="marketing", actor="bob")
    (denied,) = ledger.records("audit")
    assert (denied.fields["decision"], denied.fields["actor"]) == ("denied", "bob")
    number = ledger.record("release", actor="ada", artifact="m", digest="ab", run=run)
    assert [(paper.kind, paper.sequence) for paper in ledger.records()][-1] == ("release", number)
    with pytest.raises(errors.InvalidArgument):
        ledger.record("release", actor="ada")
    with pytest.raises(errors.InvalidArgument, match="time zone"):
        ledger.describe_dataset(Dataset("x", retention=datetime(2100, 1, 1)))
    assert ledger.verify()


def test_a_witness_notices_a_ledger_that_was_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    ledger = Ledger(path)
    signer, verifier = make_note_keys("hospital.example")
    run = begin(ledger)
    backup = path.read_bytes()
    ledger.charge(run, STEP)
    note = ledger.witness(signer)
    assert note.startswith(f"hushgrad-ledger/{ledger.id}\n{ledger.head().sequence}\n")
    assert ledger.expect_note(note, verifier)
    path.write_bytes(backup)
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "somebody else"))
    ledger = Ledger(path)
    assert ledger.missing() == [] and not ledger.expect_note(note, verifier)
    with pytest.raises(errors.LedgerError, match="put back"):
        ledger.charge(run, STEP)
    assert len(ledger.missing()) == 1
    with pytest.raises(errors.InvalidArgument, match="two different people"):
        ledger.repair(first="ada", second="ada", reason="disk")
    ledger.repair(first="ada", second="bob", reason="disk")
    ledger.charge(run, STEP)
    with pytest.raises(errors.LedgerError):
        ledger.expect_note(note.replace("\n", "\n1", 1), verifier)
