"""What of this machine would let somebody at keys, checkpoints or the ledger. Looks only; changes and writes nothing.

Works without PyTorch. What cannot be told from inside a process (disk encryption, backups, who has the root password) is not
here: docs/limits.md.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hushgrad.environment import Check
from hushgrad.errors import HushgradError

__all__ = ["check_security"]

_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
# Caches and spill files; shared memory of data loaders; core files and unfinished saves.
_IN_TEMPORARY = ("*.hgtmp", "torchinductor_*", "pymp-*", "triton*")
_IN_SHARED_MEMORY = ("torch_*", "pymp-*", "*.hgtmp")
_IN_WORKING = ("*.hgtmp", ".*.hgtmp", "core", "core.[0-9]*")


def check_security(ledger: str | os.PathLike[str] | None = None, keyring: str | os.PathLike[str] | None = None) -> list[Check]:
    """Findings, each with why it matters and what to do.

    "failed": somebody else may read or change what protects the data, or the cryptography does not give its known answers.
    "warning": a risk that depends on the rest of the machine. Paths default to those of the command line.
    """
    ledger_path = Path(ledger) if ledger is not None else Path("hushgrad.ledger.db")
    keyring_path = Path(keyring) if keyring is not None else Path("hushgrad.keyring")
    return [
        *_cryptography(),
        _fips(),
        _keyring(keyring_path),
        *_apart(keyring_path, ledger_path),
        _ledger(ledger_path),
        _state_folder(),
        _swap(),
        _core_dumps(),
        _other_processes(),
        _user(),
        _locked_memory(),
        *_temporary_files(),
        _clock(ledger_path),
    ]


def _cryptography() -> Iterator[Check]:
    """The known answers of the core, where it has a self-test."""
    why = "A library that computes wrongly would seal nothing, or what nobody can open"
    try:
        found = importlib.import_module("hushgrad.keys")
        self_test = getattr(found, "self_test", None)
        results: dict[str, bool] = self_test() if self_test is not None else {}
    except (ImportError, HushgradError) as error:
        yield Check("self-test", "failed", _one_line(error), "Do not use this installation: install hushgrad and OpenSSL again", why)
        return
    if self_test is None:
        yield Check("self-test", "warning", "this build has none", "Install a newer hushgrad", why)
        return
    wrong = [name for name, right in results.items() if not right]
    if wrong and _fips().status == "failed":
        yield Check("self-test", "failed", "no algorithm to test: the FIPS provider that was asked for is not there", "See FIPS below", why)
    elif wrong:
        told = f"wrong answers: {', '.join(wrong)}"
        yield Check("self-test", "failed", told, "Do not use this installation: install hushgrad and OpenSSL again", why)
    else:
        yield Check("self-test", "ok", f"known answers: {', '.join(results)}", "", why)


def _fips() -> Check:
    why = "Some rules ask for validated cryptography; hushgrad then takes every algorithm from OpenSSL's FIPS provider or refuses"
    told = "its provider is installed" if _fips_providers() else "no provider of OpenSSL is installed"
    mode = getattr(importlib.import_module("hushgrad.keys"), "fips_mode", None)
    try:
        on = mode() if mode is not None else os.environ.get("HUSHGRAD_FIPS") == "1"
    except HushgradError as error:
        return Check("FIPS", "failed", _one_line(error), "Install the FIPS provider of OpenSSL, or unset HUSHGRAD_FIPS", why)
    return Check("FIPS", "ok", f"{'on' if on else 'off'}; {told}", "" if on else "HUSHGRAD_FIPS=1 asks for it", why)


def _fips_providers() -> list[Path]:
    named = os.environ.get("OPENSSL_MODULES")
    usual = [*Path("/usr/lib").glob("*/ossl-modules"), Path("/usr/lib64/ossl-modules"), Path("/usr/local/lib64/ossl-modules")]
    folders = [Path(named)] if named else usual
    return [folder / "fips.so" for folder in folders if (folder / "fips.so").is_file()]


def _keyring(path: Path) -> Check:
    why = "Whoever may read the keyring may open every file sealed under it"
    if not os.path.lexists(path):
        return Check("keyring", "ok", f"none at {path.absolute()}", "--keyring names another", why)
    problem = _exposed(path, allowed=0o600)
    if problem:
        return Check("keyring", "failed", problem, f"chmod 600 {path}, and rotate its keys: somebody may have read them", why)
    return Check("keyring", "ok", f"{path.absolute()}: a file of this user, closed to others", "", why)


def _apart(keyring: Path, ledger: Path) -> Iterator[Check]:
    if keyring.exists() and ledger.exists() and keyring.absolute().parent == ledger.absolute().parent:
        yield Check(
            "separation", "warning", f"keyring and ledger lie in one folder ({keyring.absolute().parent})", "Keep the keyring where only its keepers come",
            "One backup, or one wrong permission, then gives away both the locks and the keys",
        )  # fmt: skip


def _ledger(path: Path) -> Check:
    why = "Whoever may write the ledger can rewrite what was spent"
    if not os.path.lexists(path):
        return Check("ledger file", "ok", f"none at {path.absolute()}", "--ledger names another", why)
    problem = _exposed(path, allowed=0o600) or _exposed_folder(path.absolute().parent)
    if problem:
        return Check("ledger file", "failed", problem, f"chmod 600 {path}; then `hushgrad ledger verify`, and keep its head elsewhere", why)
    return Check("ledger file", "ok", f"{path.absolute()}: closed to others", "", why)


def _state_folder() -> Check:
    why = "There this user remembers the heads of ledgers, to notice one that was put back from an older copy"
    path = _state_path()
    if path is None:
        return Check("state", "warning", "no home and no HUSHGRAD_STATE_DIR: heads of ledgers are not remembered", "Set HUSHGRAD_STATE_DIR", why)
    if not path.exists():
        return Check("state", "ok", f"{path} does not exist yet", "", why)
    if not os.access(path, os.W_OK):
        return Check("state", "warning", f"{path} may not be written to", "Give it to this user, or set HUSHGRAD_STATE_DIR", why)
    problem = _exposed(path, allowed=0o755)
    return Check("state", "warning" if problem else "ok", problem or str(path), f"chmod 700 {path}" if problem else "", why)


def _state_path() -> Path | None:
    """As accounting/ledger/high_water.cpp finds it."""
    for name, below in (("HUSHGRAD_STATE_DIR", ""), ("XDG_STATE_HOME", "hushgrad"), ("HOME", ".local/state/hushgrad")):
        if os.environ.get(name):
            return Path(os.environ[name]) / below
    return None


def _swap() -> Check:
    why = "Memory with data, weights and gradients can be written there and stays on the disk; keys are locked in memory"
    devices = [line.split()[0] for line in _read("/proc/swaps").splitlines()[1:]]
    plain = [device for device in devices if not _is_encrypted(device)]
    if plain:
        return Check("swap", "warning", f"on, not known to be encrypted: {', '.join(plain)}", "swapoff -a, or encrypt it", why)
    return Check("swap", "ok", f"encrypted or in memory: {', '.join(devices)}" if devices else "off", "", why)


def _is_encrypted(device: str) -> bool:
    name = Path(os.path.realpath(device)).name
    return name.startswith("zram") or _read(f"/sys/block/{name}/dm/uuid").startswith("CRYPT-")


def _core_dumps() -> Check:
    why = "A crash would write all of the memory to a file"
    soft = resource.getrlimit(resource.RLIMIT_CORE)[0]
    pattern = _read("/proc/sys/kernel/core_pattern").strip()
    if pattern.startswith("|"):  # core(5): the limit is not enforced for a pipe
        return Check("core dumps", "warning", f"go to a program, whatever the limit: {pattern.split()[0][1:]}", "sysctl kernel.core_pattern=core, and ulimit -c 0", why)
    if soft != 0:
        return Check("core dumps", "warning", "on", "ulimit -c 0 before training", why)
    return Check("core dumps", "ok", "off (ulimit -c 0)", "", why)


def _other_processes() -> Check:
    why = "A debugger of the same user reads keys, data and gradients out of a running training"
    scope = _read("/proc/sys/kernel/yama/ptrace_scope").strip()
    if scope in ("1", "2", "3"):
        return Check("ptrace", "ok", f"kernel.yama.ptrace_scope={scope}", "", why)
    told = f"kernel.yama.ptrace_scope={scope}: any process of this user may attach" if scope else "not restricted by Yama on this kernel"
    return Check("ptrace", "warning", told, "sysctl kernel.yama.ptrace_scope=1", why)


def _user() -> Check:
    why = "File permissions do not bind the superuser, and what runs beside is not held back either"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Check("user", "warning", "this is root", "Train as a user of its own", why)
    return Check("user", "ok", "not root", "", why)


def _locked_memory() -> Check:
    why = "Keys are locked so that they never reach swap; that needs a little of this limit"
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if soft != resource.RLIM_INFINITY and soft < 2**16:
        return Check("locked memory", "warning", f"limit of {soft} bytes", "ulimit -l 64, or raise memlock in limits.conf", why)
    return Check("locked memory", "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft // 1024} KiB", "", why)


def _temporary_files() -> Iterator[Check]:
    folder = Path(tempfile.gettempdir())
    why = "Compile caches hold constants of models, shared memory holds batches; they outlive a crash"
    mode = folder.stat().st_mode
    if mode & 0o002 and not mode & stat.S_ISVTX:
        yield Check("temporary files", "failed", f"{folder} is open to all and not sticky: others may replace files", f"chmod +t {folder}", why)
    places = ((folder, _IN_TEMPORARY), (Path("/dev/shm"), _IN_SHARED_MEMORY), (Path.cwd(), _IN_WORKING))
    found = sorted({str(path) for place, patterns in places for path in _left_behind(place, patterns)})
    if found:
        shown = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        yield Check("left behind", "warning", f"of this user: {shown}", "Look whether a training still runs; if none does, remove them", why)
    else:
        yield Check("left behind", "ok", f"nothing of a training in {folder}, /dev/shm and the working folder", "", why)


def _left_behind(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        try:
            mine = [path for path in folder.glob(pattern) if path.lstat().st_uid == os.getuid()]
        except OSError:
            continue
        yield from (path for path in mine if not path.name.startswith("core") or path.is_file())


def _clock(ledger: Path) -> Check:
    why = "Expiry of keys, approvals and retention go by the clock, and the ledger records it"
    newest = _newest_entry(ledger)
    if newest is not None and newest > time.time() + 300:
        return Check("clock", "failed", "is behind the newest entry of the ledger", "Set it; find out who set it back", why)
    try:
        synchronised = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) != _UNSYNCHRONISED
    except (OSError, AttributeError):
        return Check("clock", "warning", "whether it is synchronised cannot be told", "Run chrony or another NTP client", why)
    if not synchronised:
        return Check("clock", "warning", "not synchronised", "Run chrony or another NTP client", why)
    return Check("clock", "ok", "synchronised", "", why)


def _newest_entry(path: Path) -> float | None:
    if not path.is_file():
        return None
    from hushgrad.ledger import Ledger

    try:
        ledger = Ledger(path, create=False)
        last = None
        for last in ledger.entries():
            pass
    except HushgradError:
        return None
    return None if last is None else last.time.timestamp()


def _exposed(path: Path, allowed: int) -> str:
    """What is wrong with owner or mode, "" if nothing."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return f"{path.absolute()} is a symbolic link: what it names can be changed by whoever owns its folder"
    if facts.st_uid not in (os.getuid(), 0):
        return f"{path.absolute()} belongs to user {facts.st_uid}"
    mode = stat.S_IMODE(facts.st_mode)
    return f"{path.absolute()} has mode {mode:o}: open to others" if mode & 0o777 & ~allowed else ""


def _exposed_folder(folder: Path) -> str:
    mode = folder.stat().st_mode
    return f"{folder} may be written by all: the file in it can be replaced" if mode & 0o002 and not mode & stat.S_ISVTX else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
