"""hushgrad.keys and `hushgrad keys`. The keyring's file format is tested in tests/dpcore/keys/keyring_test.cpp."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hushgrad.errors import HushgradError, InvalidArgument, IoError, KeyError
from hushgrad.keys import Keyring, fips_mode, self_test
from hushgrad.signing import SigningKey


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from hushgrad.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_keys_of_a_keyring(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "k")
    assert keyring.list() == []
    assert not keyring.has_key(dataset="icu")
    keyring.create_key(dataset="icu")
    keyring.create_key(dataset="icu")
    keyring.create_key(dataset="Röntgen 2026")
    icu, xray = Keyring(tmp_path / "k").list()
    assert (icu.dataset, icu.state, xray.dataset) == ("icu", "active", "Röntgen 2026")
    assert re.fullmatch("[0-9a-f]{32}", icu.id)
    assert abs(icu.created - datetime.now(timezone.utc)) < timedelta(minutes=5)
    keyring.rotate_key(dataset="icu")
    assert [(key.dataset, key.state) for key in keyring.list()] == [
        ("icu", "deactivated"),
        ("Röntgen 2026", "active"),
        ("icu", "active"),
    ]
    assert keyring.has_key(dataset="icu")
    assert repr(keyring) == f"Keyring({str(tmp_path / 'k')!r})"


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "k"
    Keyring.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(KeyError, match="0600"):
        Keyring(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(KeyError, match="link"):
        Keyring(tmp_path / "link")


def test_errors_are_typed(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Keyring(tmp_path / "missing")
    keyring = Keyring.create(tmp_path / "k")
    with pytest.raises(IoError):
        Keyring.create(tmp_path / "k")
    with pytest.raises(InvalidArgument):
        keyring.create_key(dataset="a\nb")
    with pytest.raises(KeyError):
        keyring.rotate_key(dataset="icu")
    assert issubclass(KeyError, HushgradError)


def test_nothing_shows_key_material(tmp_path: Path) -> None:
    path = tmp_path / "k"
    keyring = Keyring.create(path)
    keyring.create_key(dataset="icu")
    (secret,) = re.findall(r"\b[0-9a-f]{64}\b", path.read_text())
    listed = run("keys", "list", "--json", "--keyring", str(path))
    assert "icu" in listed.stdout
    assert secret not in repr(keyring) + repr(keyring.list()) + repr(vars(keyring)) + listed.stdout + listed.stderr


def test_command_line(tmp_path: Path) -> None:
    path = str(tmp_path / "k")
    made = run("keys", "init", path)
    assert made.returncode == 0, made.stderr
    assert "no keys yet" in run("keys", "list", "--keyring", path).stdout
    assert "now has a key" in run("keys", "create", "--dataset", "icu", "--keyring", path).stdout
    assert "already has a key" in run("keys", "create", "--dataset", "icu", "--keyring", path).stdout
    (key,) = Keyring(path).list()
    listed = run("keys", "list", "--keyring", path, "--json")
    (row,) = json.loads(listed.stdout)["keys"]
    expected = {"id": key.id, "dataset": "icu", "tenant": "default", "state": "active", "created": key.created.isoformat()}
    assert {name: row[name] for name in expected} == expected
    assert key.id in run("keys", "list", "--keyring", path).stdout


@pytest.mark.parametrize(
    "arguments", [["init", "{k}"], ["list", "--keyring", "{k}x"], ["create", "--dataset", "a", "--keyring", "{k}x"]]
)
def test_command_line_failures_are_one_line(tmp_path: Path, arguments: list[str]) -> None:
    Keyring.create(tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    result = run("keys", *(argument.format(k=tmp_path / "k") for argument in arguments))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("[") and result.stderr.count("\n") == 1
    assert (tmp_path / "k").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["k", "k.log"]


def new_identity(folder: Path, name: str) -> tuple[Path, SigningKey]:
    key = SigningKey.generate()
    key.save(folder / name)
    (folder / f"{name}.pub").write_text(key.public_key.pem)
    return folder / name, key


def test_two_people_approve_a_destruction_on_the_command_line(tmp_path: Path) -> None:
    keyring = str(tmp_path / "k")

    def keys(*arguments: str, code: int = 0) -> dict[str, Any]:
        result = run("keys", *arguments, "--json")
        assert result.returncode == code, result.stderr
        return json.loads(result.stdout or result.stderr)  # type: ignore[no-any-return]

    at = ("--keyring", keyring)
    Keyring.create(keyring)
    for name, role in (("cleo", "custodian"), ("ada", "approver"), ("ben", "approver")):
        new_identity(tmp_path, name)
        by = () if name == "cleo" else ("--identity", str(tmp_path / "cleo"))
        keys("identity", "add", str(tmp_path / f"{name}.pub"), "--name", name, "--role", role, *by, *at)
    cleo = ("--identity", str(tmp_path / "cleo"), *at)
    keys("create", "--dataset", "icu", "--quorum", "2", *cleo)
    shred = ("shred", "--dataset", "icu", "--reason", "retention ended", "--yes", "--output", str(tmp_path / "cert"), *cleo)
    assert keys(*shred, code=3)["error"]["message"].startswith("[keyring] Expected shred with 2 approvals")
    request = str(tmp_path / "request.json")
    keys("request", "shred", "--dataset", "icu", "--reason", "retention ended", "--output", request, *cleo)
    for name in ("ada", "ben"):
        signed = str(tmp_path / f"{name}.json")
        keys("approve", request, "--identity", str(tmp_path / name), "--output", signed, "--yes")
    approvals = ("--approval", str(tmp_path / "ada.json"), "--approval", str(tmp_path / "ben.json"))
    assert keys(*shred, "--request", request, *approvals)["files"] == 0
    keys("export-public", "--output", str(tmp_path / "k.pub"), *at)
    certificate = keys("certificate", str(tmp_path / "cert"), "--public-key", str(tmp_path / "k.pub"))
    assert certificate["valid"]
    text = json.loads((tmp_path / "cert").read_text())
    assert [key["dataset"] for key in text["keys"]] == ["icu"] and len(text["approvers"].split()) == 2
    (tmp_path / "cert").write_text((tmp_path / "cert").read_text().replace("retention", "detention"))
    keys("certificate", str(tmp_path / "cert"), "--public-key", str(tmp_path / "k.pub"), code=2)
    (row,) = keys("list", *at)["keys"]
    assert row["state"] == "destroyed"
    verified = keys("verify", *at)
    assert verified["unfinished"] == 0 and verified["log_entries"] == 7
    assert [entry["action"] for entry in keys("log", *at)["entries"]][-2:] == ["denied", "shred"]


def test_states_on_the_command_line(tmp_path: Path) -> None:
    at = ("--keyring", str(tmp_path / "k"))
    (tmp_path / "words").write_text("correct horse\n")
    (tmp_path / "words").chmod(0o600)
    words = ("--passphrase-file", str(tmp_path / "words"))
    assert run("keys", "init", str(tmp_path / "k"), *words).returncode == 0
    refused = run("keys", "list", *at)
    assert refused.returncode == 1 and "passphrase" in refused.stderr
    assert run("keys", "create", "--dataset", "icu", "--expires", "2100-01-01", *at, *words).returncode == 0
    for command, state in (("suspend", "suspended"), ("resume", "active"), ("revoke", "compromised"), ("reinstate", "deactivated")):
        done = run("keys", command, "--dataset", "icu", "--reason", "test", *at, *words)
        assert done.returncode == 0, done.stderr
        assert [key.state for key in Keyring(tmp_path / "k", passphrase="correct horse").list()] == [state]
    assert "2100-01-01" in run("keys", "list", *at, *words).stdout
    (tmp_path / "words").chmod(0o644)
    assert "0600" in run("keys", "list", *at, *words).stderr


def test_a_restored_keyring_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "k")
    keyring.create_key(dataset="icu")
    old = (tmp_path / "k").read_bytes()
    keyring.revoke(dataset="icu", reason="stolen")
    (tmp_path / "k").write_bytes(old)
    with pytest.raises(KeyError, match="older copy"):
        Keyring(tmp_path / "k")
    with pytest.raises(KeyError, match="older copy"):
        keyring.list()
    at = ("--keyring", str(tmp_path / "k"))
    assert run("keys", "accept-restored", "--reason", "disk failed", *at).returncode == 0
    assert [entry.action for entry in Keyring(tmp_path / "k").verify()][-1] == "accept-restored"


def test_known_answers_and_fips(tmp_path: Path) -> None:
    assert len(self_test()) == 6 and all(self_test().values())
    if fips_mode():
        pytest.skip("SKIPPED: this process is in FIPS mode")
    environment = {**os.environ, "HUSHGRAD_FIPS": "1"}
    code = "from hushgrad.signing import SigningKey; SigningKey.generate(); from hushgrad.keys import fips_mode; print(fips_mode())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout == "True\n" or "Unsupported: [fips] Expected OpenSSL's FIPS provider" in result.stderr
