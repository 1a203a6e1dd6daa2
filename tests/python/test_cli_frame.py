"""The frame around every command: start-up, help, errors, exit codes, pipes, terminals, completion, the manual page."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_run import assert_one_error_line, run

from hushgrad.cli import _COMMANDS
from hushgrad.cli.exit_code import MEANINGS, ExitCode
from hushgrad.cli.frame import LazyGroup
from hushgrad.cli.root import root

ROOT = Path(__file__).parents[2]
HUSHGRAD = [sys.executable, "-m", "hushgrad"]
EPSILON = ["epsilon", "--noise-multiplier", "1", "--sampling-rate", "0.01", "--steps", "100", "--delta", "1e-5"]


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **environment}
    return subprocess.run([*HUSHGRAD, *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=60, env=environ)


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield name, command
            return
        for child in command.commands:
            yield from below(f"{name} {child}", command.get_command(None, child))

    for command in root(_COMMANDS).commands:
        yield from below(command, root(_COMMANDS).get_command(None, command))


def test_help_imports_no_command_and_no_torch() -> None:
    code = (
        "import sys\nfrom hushgrad.cli import _run\n"
        "assert _run(['--help']) == 0\n"
        "print([name for name in sys.modules if name in ('torch', 'numpy', 'hushgrad._core') or name.startswith('hushgrad.cli.epsilon')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [name for group in _COMMANDS.values() for name in group])
def test_no_command_but_training_ones_needs_torch(command: str) -> None:
    if command in ("doctor", "demo"):
        pytest.skip("imports torch when there is a model to look at or to train; its other ways are tested without")
    code = f"import sys; sys.modules['torch'] = None; from hushgrad.cli import _run; sys.exit(_run([{command!r}, '--help']))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0


def test_every_command_has_json_and_help() -> None:
    without = [name for name, command in all_commands() if not any("--json" in parameter.opts for parameter in command.params)]
    assert without == []
    assert [name for name, command in all_commands() if not command.help] == []


def test_every_option_says_what_it_is() -> None:
    silent = [f"{name} {p.name}" for name, command in all_commands() for p in command.params if p.name != "help" and not getattr(p, "help", "")]
    assert silent == []


def test_exit_codes_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs/cli.md").read_text(), flags=re.MULTILINE)
    assert [(int(code), text) for code, text in rows] == [(int(code), text) for code, text in MEANINGS.items()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["epsilom"], ["Did you mean 'epsilon'"]),
        (["ledger", "statsu"], ["Did you mean 'status'"]),
        (["ledger", "zzz"], ["status", "verify"]),
        (["ledger"], ["status", "verify", "hushgrad ledger --help"]),
        (["ledger", "status", "--zzz"], ["--dataset", "--ledger"]),
        (["ledger", "status", "--datset", "d"], ["--dataset"]),
        (["epsilon", "--delta"], ["--delta"]),
        (["--json"], ["command"]),
    ],
)
def test_a_mistyped_call_says_what_there_is(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr


def test_errors_are_json_under_json(tmp_path: Path) -> None:
    done = run("ledger", "status", "--ledger", str(tmp_path / "none.db"), "--json")
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert (error["exit_code"], error["kind"]) == (1, "LedgerError") and "hushgrad ledger init" in error["message"]
    assert json.loads(run("epsilon", "--json").stderr)["error"]["exit_code"] == 2


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(*_: object) -> None:
        warnings.warn("[x] Expected\nless.", stacklevel=2)

    monkeypatch.setattr(LazyGroup, "invoke", warns)
    assert run("epsilon").stderr == "[x] Expected less.\n"
    assert json.loads(run("epsilon", "--json").stderr) == {"warning": {"message": "[x] Expected less."}}


def test_an_unforeseen_error_is_one_line_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("something\nodd")

    monkeypatch.setattr(LazyGroup, "invoke", fails)
    assert_one_error_line(run("epsilon"), ExitCode.DEFECT, "RuntimeError: something odd", "HUSHGRAD_TRACEBACK")
    monkeypatch.setenv("HUSHGRAD_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        LazyGroup.main(root(_COMMANDS), ["epsilon"], standalone_mode=False)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/x"), FileNotFoundError(2, "No such file", "/x"), OSError("odd")])
def test_errors_of_the_system_are_one_line(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "invoke", fails)
    assert_one_error_line(run("epsilon"), ExitCode.FAILED)


def test_version_says_what_it_was_built_with() -> None:
    facts = json.loads(run("--version", "--json").stdout)
    assert {"version", "compiler", "openssl", "sqlite", "libpq", "python", "torch"} <= set(facts)
    assert run("--version").stdout.startswith(f"hushgrad {facts['version']}\n")


def test_help_and_version_may_be_words() -> None:
    assert run("help", "epsilon").stdout == run("epsilon", "--help").stdout
    assert run("version").stdout == run("--version").stdout
    assert run("help").stdout == run().stdout == run("--help").stdout


def test_python_m_hushgrad() -> None:
    assert process("--version").stdout.startswith("hushgrad ")


@pytest.mark.parametrize("arguments", [["--help"], ["man"], [*EPSILON, "--compare", "--plot"]])
def test_a_reader_that_goes_away_ends_it_quietly(arguments: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*HUSHGRAD, *arguments], stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (ExitCode.PIPE_CLOSED, "")


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*HUSHGRAD, "man"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.FAILED
    assert "No space left" in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    fifo = tmp_path / "event"
    os.mkfifo(fifo)  # a command that waits for its input
    # Where the tests themselves run in the background of a shell, children would inherit that interrupts are ignored.
    with subprocess.Popen(
        [*HUSHGRAD, "epsilon", "--event", str(fifo), "--delta", "1e-5"], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:  # fmt: skip
        with open(fifo, "w"):  # opens once the command reads
            time.sleep(0.1)
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (ExitCode.STOPPED, "Stopped.\n")


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_any_locale_will_do(environment: dict[str, str]) -> None:
    for arguments in ([*EPSILON, "--plot"], ["epsilon", "--delta", "1e-5", "--event", "é"], ["man"]):
        done = process(*arguments, **environment)
        assert "Traceback" not in done.stderr and "UnicodeEncodeError" not in done.stderr
        assert done.returncode == (1 if "--event" in arguments else 0), done.stderr


def in_terminal(arguments: list[str], columns: int, **environment: str) -> str:
    """What a terminal of that width would be sent."""
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    environ.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
    with subprocess.Popen([*HUSHGRAD, *arguments], stdout=slave, stderr=slave, stdin=slave, env=environ) as running:
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
        running.wait(timeout=60)
    os.close(master)
    return b"".join(parts).decode()


def test_colour_is_for_terminals_only() -> None:
    assert "\x1b[" in in_terminal(["epsilon"], 80)
    assert "\x1b[3" not in in_terminal(["epsilon"], 80, NO_COLOR="1")
    assert "\x1b" not in process("epsilon").stderr
    assert "\x1b" not in process("epsilon", "--help").stdout


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_tables_fit_the_terminal(columns: int) -> None:
    shown = in_terminal([*EPSILON, "--compare"], columns, NO_COLOR="1")
    table = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines() if "pld" in line]
    assert table and all(len(line) <= columns for line in table)
    assert any("0.7" in line or "0.8" in line for line in shown.splitlines())


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    done = run("ledger", "status", "--ledger", "/tmp/\x1b[31mred\x07")
    assert "\x1b" not in done.stderr + done.stdout and "\x07" not in done.stderr


@pytest.mark.parametrize(("words", "expected"), [("hushgrad ep", "epsilon"), ("hushgrad ledger ver", "verify"), ("hushgrad epsilon --noi", "--noise-multiplier"), ("hushgrad epsilon --sampling sh", "shuffled")])
def test_completion_in_bash(words: str, expected: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    (tmp_path / "hushgrad").write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.argv[0] = \'hushgrad\'; from hushgrad.cli import main; main()" "$@"\n')
    (tmp_path / "hushgrad").chmod(0o755)
    script = run("completion", "bash").stdout
    typed = words.split(" ")
    code = f"{script}\nCOMP_WORDS=({' '.join(typed)})\nCOMP_CWORD={len(typed) - 1}\n_hushgrad_completion hushgrad\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_are_of_their_shell(shell: str) -> None:
    script = run("completion", shell).stdout
    assert "_HUSHGRAD_COMPLETE=complete_" + shell in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; its script was not run")
    assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_manual_page_holds_every_command_and_option() -> None:
    page = run("man").stdout
    plain = page.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
    for name, command in all_commands():
        assert f"hushgrad {name}" in plain
        for parameter in command.params:
            assert all(option in plain for option in parameter.opts if option.startswith("--")), (name, parameter.name)
    for code in MEANINGS:
        assert f"\n{code:d}\n" in page
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed; the page was not formatted")
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, text=True, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("more", [["--output", "none/cert"], ["--output", "cert", "--file", "none"], ["--output", "there"]])
def test_keys_are_not_destroyed_if_the_certificate_cannot_be_written(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("keys", "init", "k").returncode == 0
    assert run("keys", "create", "--dataset", "d", "--keyring", "k").returncode == 0
    Path("there").write_text("mine")
    assert_one_error_line(run("keys", "shred", "--dataset", "d", "--reason", "r", "--yes", "--keyring", "k", *more), ExitCode.FAILED)
    (key,) = json.loads(run("keys", "list", "--keyring", "k", "--json").stdout)["keys"]
    assert key["state"] == "active" and Path("there").read_text() == "mine" and not Path("cert").exists()
    assert run("keys", "shred", "--dataset", "d", "--reason", "r", "--yes", "--keyring", "k", "--output", "cert").returncode == 0
    assert Path("cert").stat().st_size > 100
