"""Tries every system call of one operation: killed before it, killed after it, failing, shortened. Run by test_faults.py
under LD_PRELOAD=libhushgrad_faults.so; prints one JSON document.

    every_call.py OPERATION FOLDER
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hushgrad import _core, sealed
from hushgrad.approval import Approval, Operation, check
from hushgrad.cli import keys as cli_keys
from hushgrad.cli import keys_change, keys_rewrap, keys_shred
from hushgrad.errors import HushgradError, IoError, KeyError
from hushgrad.keys import Keyring, verify_certificate
from hushgrad.signing import SigningKey

NONE, KILL_BEFORE, KILL_AFTER, FAIL, SHORT = range(5)
ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EINTR]
SIZE = 3 * 2**20
faults = ctypes.CDLL(None)
faults.fault_names.restype = ctypes.c_char_p


def seal(path: Path, fill: int, overwrite: bool) -> None:
    keys = Keyring(path.parent / "keys")._core
    _core.write_sealed(str(path), {"dataset": "icu", "step": fill}, "{}", [("w", "U8", [SIZE], bytes([fill]) * SIZE)], keys, overwrite=overwrite)


def contents(path: Path) -> int | None:
    """Which complete state stands at a path: the byte it is filled with, or None where nothing stands."""
    if not path.exists():
        return None
    reader = _core.SealedReader(str(path), Keyring(path.parent / "keys")._core)
    reader.verify_all()
    step: int = reader.core["step"]
    assert reader.read("w") == bytes([step]) * SIZE
    return step


class Save:
    """A new file where nothing stands."""

    old: object = None

    def prepare(self, folder: Path) -> None:
        keyring = Keyring.create(folder / "keys")
        keyring.create_key(dataset="icu")

    def act(self, folder: Path) -> None:
        seal(folder / "a", 2, overwrite=False)

    def state(self, folder: Path) -> object:
        return contents(folder / "a")

    new: object = 2


class Replace(Save):
    """A new file in the place of an old one."""

    old = 1

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        seal(folder / "a", 1, overwrite=False)

    def act(self, folder: Path) -> None:
        seal(folder / "a", 2, overwrite=True)


class Rewrap(Save):
    """A file moves to its dataset's new key: its contents never change, and it always opens."""

    old = new = 1

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        seal(folder / "a", 1, overwrite=False)
        Keyring(folder / "keys").rotate_key(dataset="icu")

    def act(self, folder: Path) -> None:
        sealed.rewrap(folder / "a", keyring=folder / "keys")

    def repair(self, folder: Path) -> None:
        sealed.rewrap(folder / "a", keyring=folder / "keys")
        assert not sealed.inspect(folder / "a").damaged_slot
        assert not sealed.rewrap(folder / "a", keyring=folder / "keys").changed


class Rotate(Rewrap):
    """A dataset gets a new key: files of the old one still open."""

    def act(self, folder: Path) -> None:
        Keyring(folder / "keys").rotate_key(dataset="icu")

    def repair(self, folder: Path) -> None:
        return


class OpenFolder(Save):
    """A sealed folder is opened: the whole folder, or nothing."""

    new = [("a", b"one"), ("b/c", b"two" * 1000)]

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        (folder / "source/b").mkdir(parents=True)
        for name, content in self.new:
            (folder / "source" / name).write_bytes(content)
        sealed.seal(folder / "source", folder / "x", keyring=folder / "keys", dataset="icu")

    def act(self, folder: Path) -> None:
        sealed.open(folder / "x", folder / "out", keyring=folder / "keys")

    def state(self, folder: Path) -> object:
        out = folder / "out"
        if not out.exists():
            return None
        return sorted((str(p.relative_to(out)), p.read_bytes()) for p in out.rglob("*") if p.is_file())


class Create(Save):
    """A new keyring, with the log beside it."""

    old = "none"
    new = "empty"

    def prepare(self, folder: Path) -> None:
        return

    def act(self, folder: Path) -> None:
        Keyring.create(folder / "keys")

    def state(self, folder: Path) -> object:
        if not (folder / "keys").exists():
            return "none"
        keyring = Keyring(folder / "keys")
        assert [entry.action for entry in keyring.verify()] == ["init"] and keyring.list() == []
        return "empty"


class Shred(Save):
    """A dataset's key is destroyed: the file opens and nothing says otherwise, or it never opens and a certificate says so."""

    old = "opens"
    new = "destroyed and certified"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        seal(folder / "a", 1, overwrite=False)

    def act(self, folder: Path) -> None:
        text = Keyring(folder / "keys").shred(dataset="icu", reason="retention ended", files=["a"])
        self.check_certificate(folder, text)

    def state(self, folder: Path) -> object:
        keyring = Keyring(folder / "keys")
        keyring.verify()
        if keyring.list()[0].state != "destroyed":
            assert contents(folder / "a") == 1
            try:
                keyring.certificate(dataset="icu")
            except KeyError:
                return "opens"
            raise AssertionError("a certificate of a key that lives")
        try:
            contents(folder / "a")
            raise AssertionError("a destroyed key opens")
        except KeyError:
            self.check_certificate(folder, keyring.certificate(dataset="icu"))
        return "destroyed and certified"

    def check_certificate(self, folder: Path, text: str) -> None:
        keyring = Keyring(folder / "keys")
        assert verify_certificate(text, keyring.public_key)
        facts = json.loads(text)
        assert [key["id"] for key in facts["keys"]] == [key.id for key in keyring.list()]
        assert facts["files"] == ["a"] and facts["generation"] == keyring.generation
        assert facts["keys"][0]["state"] == "active" and facts["reason"] == "retention ended"


class ShredByCommand(Shred):
    """The same on the command line: a certificate that stands is whole."""

    def act(self, folder: Path) -> None:
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            keys_shred.shred("retention ended", folder / "cert", dataset="icu", files=[Path("a")], keyring=folder / "keys", yes=True)
        assert (folder / "cert").exists()

    def state(self, folder: Path) -> object:
        state = super().state(folder)
        if (folder / "cert").exists():
            assert state == self.new
            self.check_certificate(folder, (folder / "cert").read_text())
        return state


class RotateByCommand(Rotate):
    """`hushgrad keys rotate`."""

    def act(self, folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            cli_keys.rotate("icu", reason="yearly", keyring=folder / "keys")


class RewrapByCommand(Rewrap):
    """`hushgrad keys rewrap`: what fails is counted as failed, by its exit code."""

    def act(self, folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                keys_rewrap.rewrap([folder / "a"], keyring=folder / "keys")
            except keys_rewrap.typer.Exit as exit:
                raise IoError("a file was not re-wrapped") from exit


class ApproveByCommand(Save):
    """`hushgrad keys approve`: a whole approval, or none."""

    old = "none"
    new = "approved"

    def prepare(self, folder: Path) -> None:
        ada, cleo = SigningKey.generate(), SigningKey.generate()
        ada.save(folder / "ada")
        Keyring.create(folder / "keys", identity=cleo)
        Keyring(folder / "keys", identity=cleo).request("shred", dataset="icu", reason="retention ended").save(folder / "request")

    def act(self, folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            keys_change.give_approval(folder / "request", folder / "ada", folder / "approval", yes=True)

    def state(self, folder: Path) -> object:
        if not (folder / "approval").exists():
            return "none"
        approval = Approval.load(folder / "approval")
        assert approval.approver == SigningKey.load(folder / "ada").id
        check(Operation.load(folder / "request"), [approval], approvers=[SigningKey.load(folder / "ada").public_key], quorum=1)
        return "approved"


OPERATIONS: dict[str, type[Save]] = {
    "save": Save,
    "replace": Replace,
    "rewrap": Rewrap,
    "rotate": Rotate,
    "open": OpenFolder,
    "create": Create,
    "shred": Shred,
    "shred-command": ShredByCommand,
    "rotate-command": RotateByCommand,
    "rewrap-command": RewrapByCommand,
    "approve-command": ApproveByCommand,
}


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a forked child; negative: killed by that signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            code = work()
        except BaseException:  # noqa: BLE001 - the parent reports it
            traceback.print_exc()
            code = 99
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    operation, root = OPERATIONS[sys.argv[1]](), Path(sys.argv[2]).resolve()
    pristine, folder = root / "pristine", root / "work"
    pristine.mkdir()
    # The newest keyring that was seen is remembered there: each attempt starts from the same memory.
    os.environ["HUSHGRAD_STATE_DIR"] = str(pristine / "state")
    assert in_child(lambda: operation.prepare(pristine) or 0) == 0
    os.environ["HUSHGRAD_STATE_DIR"] = str(folder / "state")

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)

    def attempt(action: int, call: int, error: int) -> Callable[[], int]:
        def work() -> int:
            faults.fault_arm(os.fsencode(folder), action, call, error)
            failed = 0
            try:
                operation.act(folder)
            except (IoError, HushgradError):
                failed = 1
            finally:
                calls, names = faults.fault_calls(), faults.fault_names()
                faults.fault_arm(b"", NONE, -1, 0)
                (root / "calls").write_text(f"{calls} {names.decode()}")
            return failed

        return work

    fresh()
    assert in_child(attempt(NONE, -1, 0)) == 0
    total, *names = (root / "calls").read_text().split()
    plan = [(KILL_BEFORE, 0), (KILL_AFTER, 0), (SHORT, 0), *((FAIL, e) for e in ERRORS)]
    points, wrong = 0, []
    for call in range(int(total)):
        for action, error in plan:
            if action == SHORT and "write" not in names[call]:
                continue
            fresh()
            status = in_child(attempt(action, call, error))
            killed = action in (KILL_BEFORE, KILL_AFTER)
            # A note of the time, once a minute, may come before: what was struck is what this attempt counted.
            counted = names if killed else (root / "calls").read_text().split()[1:]
            struck = counted[call] if call < len(counted) else "none"
            what = f"{['', 'killed before', 'killed after', 'failing', 'short'][action]} call {call} ({struck}){f' {errno.errorcode[error]}' if error else ''}"
            if killed != (status == -9):
                wrong.append(f"{what}: ended with {status}")
            retried = (action == SHORT and "write" in struck) or (error == errno.EINTR and "write" in struck)

            def verdict_of() -> int:
                state = operation.state(folder)
                if hasattr(operation, "repair"):
                    operation.repair(folder)
                    state = operation.state(folder)
                left = [n for n in os.listdir(folder) if n.endswith(".hgtmp")]
                if not killed and left and "unlink" not in struck:
                    return 3
                if retried and (status != 0 or state != operation.new):
                    return 4
                if status == 0 and state != operation.new:
                    return 5
                return 0 if state in (operation.old, operation.new) else 6

            verdict = in_child(verdict_of)
            if verdict != 0:
                wrong.append(f"{what}: {({3: 'a temporary file is left', 4: 'not finished though it could', 5: 'success without the new state', 6: 'neither old nor new'}).get(verdict, verdict)}")
            points += 1
    print(json.dumps({"operation": sys.argv[1], "calls": names, "points": points, "wrong": wrong}))


if __name__ == "__main__":
    main()
