"""`hushgrad doctor --security`: each finding on a machine made to have it, and none where it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from cli_run import read, run

from hushgrad import security
from hushgrad.environment import Check
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger


def checks(tmp_path: Path, **paths: Path) -> dict[str, Check]:
    found = security.check_security(paths.get("ledger", tmp_path / "none.db"), paths.get("keyring", tmp_path / "none.keyring"))
    return {check.name: check for check in found}


def test_every_finding_says_why_and_what_to_do(tmp_path: Path) -> None:
    for check in checks(tmp_path).values():
        assert check.why, check.name
        assert check.status == "ok" or check.instead, check.name


def test_a_keyring_open_to_others_fails(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    path.parent.mkdir()
    Keyring.create(path)
    assert checks(tmp_path, keyring=path)["keyring"].status == "ok"
    path.chmod(0o640)
    found = checks(tmp_path, keyring=path)["keyring"]
    assert found.status == "failed" and "mode 640" in found.detail
    done = run("doctor", "--security", "--keyring", str(path), "--ledger", str(tmp_path / "none.db"))
    assert done.returncode == 1
    assert "FAIL keyring" in done.stdout and "why: " in done.stdout


def test_a_symbolic_link_in_place_of_a_keyring_fails(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "symbolic link" in checks(tmp_path, keyring=tmp_path / "link")["keyring"].detail


def test_keyring_and_ledger_in_one_folder(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "k")
    Ledger(tmp_path / "l.db")
    found = checks(tmp_path, keyring=tmp_path / "k", ledger=tmp_path / "l.db")
    assert found["separation"].status == "warning"


def test_a_ledger_open_to_others_fails(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    Ledger(path)
    assert checks(tmp_path, ledger=path)["ledger file"].status == "ok"
    path.chmod(0o666)
    assert checks(tmp_path, ledger=path)["ledger file"].status == "failed"
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    assert "replaced" in checks(tmp_path, ledger=path)["ledger file"].detail


def test_a_clock_behind_the_ledger_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    Ledger(path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert checks(tmp_path, ledger=path)["clock"].status == "failed"


SYSTEM = {
    "/proc/swaps": "Filename Type Size\n/dev/sda2 partition 1\n",
    "/proc/sys/kernel/core_pattern": "|/usr/lib/systemd/systemd-coredump %P\n",
    "/proc/sys/kernel/yama/ptrace_scope": "0\n",
}


@pytest.mark.parametrize(
    ("path", "text", "name", "status"),
    [
        ("/proc/swaps", SYSTEM["/proc/swaps"], "swap", "warning"),
        ("/proc/swaps", "Filename\n/dev/zram0 partition 1\n", "swap", "ok"),
        ("/proc/swaps", "Filename\n", "swap", "ok"),
        ("/proc/sys/kernel/core_pattern", SYSTEM["/proc/sys/kernel/core_pattern"], "core dumps", "warning"),
        ("/proc/sys/kernel/yama/ptrace_scope", "0\n", "ptrace", "warning"),
        ("/proc/sys/kernel/yama/ptrace_scope", "", "ptrace", "warning"),
        ("/proc/sys/kernel/yama/ptrace_scope", "1\n", "ptrace", "ok"),
    ],
)
def test_what_the_system_says(path: str, text: str, name: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_read", lambda asked: text if asked == path else "")
    assert checks(tmp_path)[name].status == status


def test_what_a_crash_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(security.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "a.hgtmp").write_bytes(b"")
    found = checks(tmp_path)["left behind"]
    assert found.status == "warning" and "a.hgtmp" in found.detail
    tmp_path.chmod(0o777)
    assert checks(tmp_path)["temporary files"].status == "failed"


@pytest.mark.parametrize(("answers", "status"), [({"AES-256-GCM": True, "ML": True}, "ok"), ({"AES-256-GCM": True, "HKDF": False}, "failed"), (None, "failed")])
def test_known_answers(answers: dict[str, bool] | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hushgrad.keys
    from hushgrad.errors import InvalidState

    def self_test() -> dict[str, bool]:
        if answers is None:
            raise InvalidState("[self_test] Expected the known answer of AES-256-GCM, received another.")
        return answers

    monkeypatch.setattr(hushgrad.keys, "self_test", self_test, raising=False)
    found = checks(tmp_path)["self-test"]
    assert found.status == status
    assert ("HKDF" in found.detail) == (answers is not None and "HKDF" in answers)


def test_fips_that_is_asked_for_and_not_there_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hushgrad.keys
    from hushgrad.errors import Unsupported

    def fips_mode() -> bool:
        raise Unsupported("[fips] Expected OpenSSL's FIPS provider, received none.")

    assert checks(tmp_path)["FIPS"].status == "ok"
    monkeypatch.setattr(hushgrad.keys, "fips_mode", fips_mode, raising=False)
    assert checks(tmp_path)["FIPS"].status == "failed"


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = read("doctor", "--security")
    assert os.listdir(tmp_path) == []
    assert document["ok"] is True
