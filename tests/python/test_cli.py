"""The command line: what it prints, its exit codes, and that an error is one line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from cli_run import assert_one_error_line, read, run

from hushgrad import accounting, errors
from hushgrad.cli import main
from hushgrad.cli.output import rounded_down, rounded_up
from hushgrad.ledger import Ledger

MAIN = "import sys; sys.modules['torch'] = None; from hushgrad.cli import main; main()"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A ledger with a budget, a finished run with three steps and a refusal."""
    name = str(tmp_path / "l.db")
    ledger = Ledger(name)
    ledger.set_budget(dataset="ward-7", epsilon=1.0, delta=1e-5)
    training = ledger.begin_run(dataset="ward-7", purpose="model [red]", actor="ada")
    for _ in range(3):
        ledger.charge(training, accounting.GaussianDpEvent(30.0))
    with pytest.raises(errors.BudgetExceeded):
        ledger.charge(training, accounting.GaussianDpEvent(0.5))
    ledger.finish_run(training)
    return name


def test_help_lists_the_commands() -> None:
    done = run()
    assert done.returncode == 0
    for command in ("epsilon", "calibrate", "ledger"):
        assert command in done.stdout


def test_init_makes_a_ledger_once(tmp_path: Path) -> None:
    done = run("ledger", "init", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hushgrad.ledger.db").stat().st_mode & 0o777 == 0o600
    assert_one_error_line(run("ledger", "init", cwd=tmp_path), 1, "hushgrad.ledger.db")


@pytest.mark.parametrize("command", [["status"], ["history"], ["verify"], ["set-budget", "--dataset", "d", "--epsilon", "1", "--delta", "1e-5"]])
def test_other_commands_never_make_a_ledger(tmp_path: Path, command: list[str]) -> None:
    assert_one_error_line(run("ledger", *command, cwd=tmp_path), 1, "hushgrad ledger init")
    assert list(tmp_path.iterdir()) == []


def test_set_budget_is_recorded(path: str) -> None:
    done = run("ledger", "set-budget", "--ledger", path, "--dataset", "ward-8", "--epsilon", "2.5", "--delta", "1e-6")
    assert done.returncode == 0, done.stderr
    budget = Ledger(path).budget("ward-8")
    assert budget is not None
    assert (budget.epsilon, budget.delta) == (2.5, 1e-6)


def test_status(path: str) -> None:
    document = read("ledger", "status", "--ledger", path)
    (row,) = document["datasets"]
    lower, upper = Ledger(path).spent(dataset="ward-7", delta=1e-5)
    (part,) = row.pop("budgets")
    assert (part["covers"], part["epsilon"], part["epsilon_upper"], part["since"], part["warns"]) == ("all runs", 1.0, upper, None, False)
    assert row == {
        "budget": {"delta": 1e-5, "epsilon": 1.0},
        "dataset": "ward-7",
        "delta": 1e-5,
        "epsilon_lower": lower,
        "epsilon_upper": upper,
        "refusals": 1,
        "reserved": 0,
        "warning": 0,
        "runs": 1,
        "steps": 3,
    }
    assert document["head"]["sequence"] == 9
    shown = run("ledger", "status", "--ledger", path).stdout
    assert "ward-7" in shown
    assert rounded_up(upper) in shown


def test_status_without_a_budget_asks_for_delta(path: str) -> None:
    ledger = Ledger(path)
    ledger.charge(ledger.begin_run(dataset="free"), accounting.GaussianDpEvent(0.0))
    assert "--delta" in run("ledger", "status", "--ledger", path).stdout
    (row,) = read("ledger", "status", "--ledger", path, "--dataset", "free", "--delta", "1e-5")["datasets"]
    assert row["epsilon_upper"] == "infinity"
    assert "infinity" in run("ledger", "status", "--ledger", path, "--delta", "1e-5").stdout


def test_history_gathers_successive_charges(path: str) -> None:
    rows = read("ledger", "history", "--ledger", path)
    assert [row["kind"] for row in rows] == ["genesis", "budget", "run", "event", "charge", "refusal", "finish"]
    assert (rows[4]["first"], rows[4]["last"]) == (5, 7)
    assert "3 steps" in rows[4]["what"]
    shown = run("ledger", "history", "--ledger", path).stdout
    assert "[red]" in shown, "a purpose must not be read as markup"
    assert read("ledger", "history", "--ledger", path, "--dataset", "other") == []


def test_verify(path: str) -> None:
    head = Ledger(path).head()
    assert read("ledger", "verify", "--ledger", path) == {
        "entries": 9,
        "first_bad": 0,
        "head": {"hash": head.hash, "sequence": head.sequence},
        "ok": True,
        "reason": "",
    }
    assert head.hash in run("ledger", "verify", "--ledger", path).stdout


def test_verify_names_the_first_bad_entry(path: str) -> None:
    data = Path(path).read_bytes()
    assert data.count(b'{"event":4}') == 3
    Path(path).write_bytes(data.replace(b'{"event":4}', b'{"event":3}', 1))
    done = run("ledger", "verify", "--ledger", path, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["first_bad"] in (5, 6, 7)
    assert_one_error_line(done, 1, f"entry {document['first_bad']}")
    assert_one_error_line(run("ledger", "status", "--ledger", path), 1, "verify")


def test_epsilon() -> None:
    arguments = ["epsilon", "--noise-multiplier", "1", "--sampling-rate", "0.01", "--steps", "1000", "--delta", "1e-5"]
    step = accounting.PoissonSampledDpEvent(0.01, accounting.GaussianDpEvent(1.0))
    lower, upper = accounting.epsilon(accounting.SelfComposedDpEvent(step, 1000), 1e-5)
    expected = {"adjacency": "add_or_remove_one", "delta": 1e-5, "epsilon_lower": lower, "epsilon_upper": upper}
    assert read(*arguments) == expected
    compared = read(*arguments, "--compare", "--plot", "--adjacency", "zero_out")
    assert compared["accountants"]["rdp"][1] > upper == compared["accountants"]["pld"][1]
    assert compared["over_steps"]["pld"][-1] == [1000, lower, upper]
    assert rounded_up(upper) in run(*arguments).stdout


def test_epsilon_plots(tmp_path: Path) -> None:
    arguments = ["epsilon", "--noise-multiplier", "1", "--sampling-rate", "0.01", "--steps", "1000", "--delta", "1e-5"]
    shown = run(*arguments, "--plot", "--compare").stdout
    assert "1000 steps" in shown and "█" in shown and "rdp" in shown
    assert run(*arguments, "--output", str(tmp_path / "x.pdf")).returncode == 2
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for name, head in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml")):
        assert run(*arguments, "--output", str(tmp_path / name)).returncode == 0
        assert (tmp_path / name).read_bytes().startswith(head)


def test_epsilon_without_noise_is_infinite() -> None:
    arguments = ["epsilon", "--noise-multiplier", "0", "--sampling-rate", "0.1", "--steps", "1", "--delta", "1e-5"]
    assert read(*arguments)["epsilon_upper"] == "infinity"


def test_calibrate() -> None:
    document = read(
        "calibrate", "--target-epsilon", "3", "--target-delta", "1e-5", "--sampling-rate", "0.01", "--steps", "1000"
    )
    step = accounting.PoissonSampledDpEvent(0.01, accounting.GaussianDpEvent(document["noise_multiplier"]))
    assert accounting.epsilon(accounting.SelfComposedDpEvent(step, 1000), 1e-5)[1] <= 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["ledger", "no-such-command"],
        ["ledger", "status", "--no-such-option"],
        ["epsilon"],
        ["epsilon", "--noise-multiplier", "x", "--sampling-rate", "0.1", "--steps", "1", "--delta", "1e-5"],
        ["epsilon", "--noise-multiplier", "1", "--sampling-rate", "2", "--steps", "1", "--delta", "1e-5"],
        ["epsilon", "--noise-multiplier", "1", "--sampling-rate", "0.1", "--steps", "1", "--delta", "0"],
        ["calibrate", "--target-epsilon", "-1", "--target-delta", "1e-5", "--sampling-rate", "0.1", "--steps", "1"],
    ],
)
def test_usage_errors_are_one_line_and_code_2(arguments: list[str]) -> None:
    assert_one_error_line(run(*arguments), 2)


def test_a_bad_name_is_a_usage_error(path: str) -> None:
    done = run("ledger", "set-budget", "--ledger", path, "--dataset", "a\nb", "--epsilon", "1", "--delta", "1e-5")
    assert_one_error_line(done, 2)


def test_budget_refusals_have_their_own_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hushgrad.cli.frame import LazyGroup

    def refused(*_: object, **__: object) -> None:
        raise errors.BudgetExceeded("[x] Expected less,\nreceived more. Stop.")

    monkeypatch.setattr(LazyGroup, "invoke", refused)
    monkeypatch.setattr(sys, "argv", ["hushgrad", "epsilon"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert capsys.readouterr().err == "[x] Expected less, received more. Stop.\n"


def test_a_process_of_its_own_without_torch(path: str) -> None:
    def process(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MAIN, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert process("ledger", "status", "--ledger", path).returncode == 0
    assert_one_error_line(process("ledger", "status", "--ledger", path + ".none"), 1, "hushgrad ledger init")
    assert_one_error_line(process("nonsense"), 2)


def test_shown_numbers_are_rounded_against_us() -> None:
    assert rounded_up(1.00001) == "1.0001"
    assert rounded_down(1.99999) == "1.9999"
    assert rounded_up(2.0) == rounded_down(2.0) == "2.0000"
    assert rounded_up(math.inf) == rounded_down(math.inf) == "infinity"


def test_describe_and_explain(path: str) -> None:
    for arguments in (["--dataset", "raw"], ["--dataset", "ward-7", "--parent", "raw", "--purpose", "audit", "--retention", "2100-01-01"]):
        done = run("ledger", "describe", "--ledger", path, *arguments)
        assert done.returncode == 0, done.stderr
    (row,) = Ledger(path).runs()
    document = read("ledger", "explain", row.run_id[:8], "--ledger", path, "--delta", "1e-5")
    assert (document["run"], document["steps"], document["counts_for"]) == (row.run_id, 3, ["ward-7", "raw"])
    assert [budget["epsilon"] for budget in document["budgets"]] == [1.0]
    assert document["epsilon_upper"] == Ledger(path).run_spent(row.run_id, 1e-5)[1]
    done = run("ledger", "explain", row.run_id, "--ledger", path)
    assert done.returncode == 0 and "ward-7, raw" in done.stdout
    assert_one_error_line(run("ledger", "explain", "x", "--ledger", path), 2, "one run")
    assert run("ledger", "history", "--ledger", path).returncode == 0


def test_warning_levels_show(path: str) -> None:
    done = run("ledger", "set-budget", "--ledger", path, "--dataset", "ward-7", "--epsilon", "2", "--delta", "1e-5", "--warning", "0.01")
    assert done.returncode == 0, done.stderr
    assert "warning level of 0.01" in run("ledger", "status", "--ledger", path).stdout


def test_export_import_and_move(path: str, tmp_path: Path) -> None:
    exported = run("ledger", "export", "--ledger", path).stdout
    (tmp_path / "lines").write_text(exported, encoding="utf-8")
    done = run("ledger", "import", str(tmp_path / "lines"), "--ledger", str(tmp_path / "copy.db"))
    assert done.returncode == 0, done.stderr
    assert Ledger(tmp_path / "copy.db").head() == Ledger(path).head()
    (tmp_path / "lines").write_text(exported.replace("ward-7", "ward-8", 1), encoding="utf-8")
    assert_one_error_line(run("ledger", "import", str(tmp_path / "lines"), "--ledger", str(tmp_path / "bad.db")), 1, "entry 2")
    assert not (tmp_path / "bad.db").exists()
    (tmp_path / "lines").write_text("{}\n", encoding="utf-8")
    assert_one_error_line(run("ledger", "import", str(tmp_path / "lines"), "--ledger", str(tmp_path / "bad.db")), 2, "line 1")
    done = run("ledger", "move", str(tmp_path / "moved.db"), "--ledger", path, "--by", "ada")
    assert done.returncode == 0, done.stderr
    assert Ledger(tmp_path / "moved.db").contains(Ledger(path).head())
    moved = run("ledger", "set-budget", "--ledger", path, "--dataset", "d", "--epsilon", "1", "--delta", "1e-5")
    assert_one_error_line(moved, 1, "moved to another place")


def test_witness_and_repair(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = Path(path).read_bytes()
    public = run("ledger", "witness", "--new-key", "clinic", "--key", str(tmp_path / "key")).stdout.strip()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    Ledger(path).set_budget(dataset="ward-9", epsilon=1, delta=1e-5)
    note = run("ledger", "witness", "--key", str(tmp_path / "key"), "--ledger", path).stdout
    (tmp_path / "note").write_text(note, encoding="utf-8")
    check = ["--check", str(tmp_path / "note"), "--verifier", public, "--ledger", path]
    assert run("ledger", "witness", *check).returncode == 0
    Path(path).write_bytes(backup)
    assert "put back" in run("ledger", "status", "--ledger", path).stdout
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "another user"))
    assert_one_error_line(run("ledger", "witness", *check), 1, "put back")
    one = run("ledger", "repair", *check, "--first", "ada", "--second", "ada", "--reason", "disk")
    assert_one_error_line(one, 2, "two different people")
    assert run("ledger", "repair", *check, "--first", "ada", "--second", "bob", "--reason", "disk").returncode == 0
    assert run("ledger", "witness", *check).returncode == 0


def test_every_command_is_listed_with_its_own_first_paragraph() -> None:
    from hushgrad.cli import _COMMANDS
    from hushgrad.cli.frame import load

    for commands in _COMMANDS.values():
        for name, (module, summary) in commands.items():
            assert " ".join((load(module, name).help or "").split("\n\n")[0].split()).startswith(summary), name
