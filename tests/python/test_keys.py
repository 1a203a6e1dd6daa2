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

import pytest

from hushgrad.errors import HushgradError, InvalidArgument, IoError, KeyError
from hushgrad.keys import Keyring


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
        ("icu", "retired"),
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
    assert json.loads(listed.stdout) == {
        "keys": [{"id": key.id, "dataset": "icu", "state": "active", "created": key.created.isoformat()}]
    }
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
    assert os.listdir(tmp_path) == ["k"]
