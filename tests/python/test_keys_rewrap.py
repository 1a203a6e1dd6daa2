"""`hushgrad keys rewrap`: many files, with what goes wrong, resumed. The re-wrap of one file is tested in test_sealed.py.
HUSHGRAD_REWRAP_FILES: how many (200; some thousands in a long run)."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
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


def test_many_files_move_with_progress_and_after_a_kill_the_rest(tmp_path: Path) -> None:
    count = int(os.environ.get("HUSHGRAD_REWRAP_FILES", "200"))
    keyring = Keyring.create(tmp_path / "k")
    keyring.create_key(dataset="icu")
    (tmp_path / "plain").write_text("weights")
    folder = tmp_path / "files"
    folder.mkdir()
    files = [folder / f"{i:05}.hg" for i in range(count)]
    for path in files:
        sealed.seal(tmp_path / "plain", path, keyring=keyring, dataset="icu")
    old = sealed.inspect(files[0]).key_id
    keyring.rotate_key(dataset="icu")
    at = (str(folder), "--keyring", str(tmp_path / "k"))

    # On a terminal, killed when a third is done; the command goes through the files in order.
    terminal, end = pty.openpty()
    words = [sys.executable, "-c", "from hushgrad.cli import main; main()", "keys", "rewrap", *at]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=end, env={**os.environ, "TERM": "xterm"})
    os.close(end)
    os.set_blocking(terminal, False)
    shown = b""
    deadline = time.monotonic() + 300
    while sealed.inspect(files[count // 3]).key_id == old and killed.poll() is None:
        assert time.monotonic() < deadline
        try:
            shown += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.001)
    killed.kill()
    killed.wait()
    os.close(terminal)
    assert b"re-wrapping" in shown and b"%" in shown
    moved = sum(sealed.inspect(path).key_id != old for path in files)
    assert count // 3 < moved <= count

    answer = rewrap(*at)
    assert answer["failed"] == {}
    assert answer["rewrapped"] in (count - moved, count - moved + 1)  # one was being written
    assert rewrap(*at) == {"rewrapped": 0, "current": count, "failed": {}}
    keyring.shred(key_id=old, reason="rotated away")
    for number, path in enumerate(files):
        assert not sealed.inspect(path).damaged_slot
        sealed.open(path, tmp_path / f"opened {number}", keyring=keyring)
        assert (tmp_path / f"opened {number}").read_text() == "weights"
