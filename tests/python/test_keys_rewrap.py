"""`hushgrad keys rewrap`: many files, with what goes wrong, resumed. The re-wrap of one file is tested in test_sealed.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hushgrad import sealed
from hushgrad.keys import Keyring


def rewrap(*arguments: str, code: int = 0) -> dict[str, object]:
    words = [sys.executable, "-c", "from hushgrad.cli import main; main()", "keys", "rewrap", *arguments, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_folder_moves_to_the_present_key_and_what_fails_is_named(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "k")
    for dataset in ("icu", "lab"):
        keyring.create_key(dataset=dataset)
    (tmp_path / "plain").write_text("weights")
    folder = tmp_path / "files" / "deep"
    folder.mkdir(parents=True)
    for i in range(6):
        sealed.seal(tmp_path / "plain", folder / f"{i}.hg", keyring=keyring, dataset="icu" if i < 4 else "lab")
    (folder / "notes.txt").write_text("not sealed")
    old = sealed.inspect(folder / "0.hg").key_id
    for dataset in ("icu", "lab"):
        keyring.rotate_key(dataset=dataset)
    at = ("--keyring", str(tmp_path / "k"))
    assert rewrap(str(tmp_path / "files"), "--dataset", "lab", *at) == {"rewrapped": 2, "current": 0, "failed": {}}
    assert sealed.inspect(folder / "0.hg").key_id == old

    broken = folder / "1.hg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-5])
    answer = rewrap(str(tmp_path / "files"), *at, code=1)
    assert (answer["rewrapped"], answer["current"]) == (3, 2) and list(answer["failed"]) == [str(broken)]  # type: ignore[call-overload]
    broken.write_bytes(whole)
    assert rewrap(str(tmp_path / "files"), *at) == {"rewrapped": 1, "current": 5, "failed": {}}

    keyring.shred(key_id=old, reason="rotated away")
    assert sealed.inspect(folder / "0.hg").key_id != old
    sealed.open(folder / "0.hg", tmp_path / "opened", keyring=keyring)
    assert (tmp_path / "opened").read_text() == "weights"
