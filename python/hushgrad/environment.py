"""Whether this machine is fit for private training: libraries, cryptography, where the budget is kept. Works without PyTorch."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hushgrad.errors import HushgradError

__all__ = ["Check", "check_environment"]

_TORCH = "2.13"
_LOST_AT_REBOOT = ("tmpfs", "ramfs", "devtmpfs")
_OVER_THE_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "glusterfs", "9p", "afs")


@dataclass(frozen=True)
class Check:
    """One line of the check-up."""

    name: str
    status: str
    """ "ok", "warning" (works, with a risk that is named) or "failed" (training will not start)."""
    detail: str
    instead: str = ""


def check_environment(ledger: str | os.PathLike[str] | None = None) -> list[Check]:
    """Looks at the package, its compiled parts, OpenSSL, PyTorch, the processor and the ledger's place. Writes nothing.

    ledger: path of the budget ledger; default ``hushgrad.ledger.db`` in the working directory.
    """
    return [
        _package(),
        _compiled_core(),
        _openssl(),
        _torch_version(),
        _compiled_training(),
        _processor(),
        *_ledger(Path(ledger) if ledger is not None else Path("hushgrad.ledger.db")),
    ]


def _package() -> Check:
    from hushgrad import __version__

    return Check("hushgrad", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")


def _compiled_core() -> Check:
    try:
        importlib.import_module("hushgrad._core").random_bytes(16)
    except (ImportError, HushgradError) as error:
        return Check("core", "failed", _one_line(error), "Install hushgrad again for this Python")
    return Check("core", "ok", "noise, sampling, accounting and ledger; the system's secure generator answers")


def _openssl() -> Check:
    found = _loaded_library("libcrypto")
    if found is None:
        return Check("OpenSSL", "warning", "the library that is loaded cannot be told", "Check with `openssl version`")
    version = ctypes.CDLL(found).OpenSSL_version
    version.restype = ctypes.c_char_p
    return Check("OpenSSL", "ok", f"{version(0).decode(errors='replace')} ({found})")


def _loaded_library(name: str) -> str | None:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    match = re.search(rf"(/\S*/{name}[^/\s]*\.so[^/\s]*)", maps)
    return match.group(1) if match else None


def _torch_version() -> Check:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Check("PyTorch", "warning", "not installed: reports and ledgers work, training does not", "pip install hushgrad[torch]")
    if not version.startswith(f"{_TORCH}."):
        return Check("PyTorch", "failed", f"{version}; this hushgrad is built for {_TORCH}", f"pip install 'torch=={_TORCH}.*'")
    return Check("PyTorch", "ok", version)


def _compiled_training() -> Check:
    try:
        importlib.import_module("hushgrad._torch")
    except ImportError as error:
        return Check("training", "failed", _one_line(error), "Install hushgrad again beside the torch it is to train with")
    return Check("training", "ok", "graph capture, clipping and charging are loaded")


def _processor() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("processor", "ok", f"{platform.machine()}, {count} usable cores")


def _ledger(path: Path) -> Iterator[Check]:
    folder = path.absolute().parent
    if not folder.is_dir():
        yield Check("ledger", "failed", f"{folder} is not a folder", "Create it, or name another place")
        return
    yield _filesystem(folder)
    if not path.exists():
        writable = os.access(folder, os.W_OK)
        status, instead = ("ok", "") if writable else ("failed", "Name a place that may be written to")
        yield Check("ledger", status, f"{path.absolute()} does not exist yet; the first run makes it", instead)
        return
    yield _open_ledger(path)


def _open_ledger(path: Path) -> Check:
    from hushgrad.ledger import Ledger

    try:
        ledger = Ledger(path, create=False)
        head, datasets = ledger.head(), ledger.datasets()
    except HushgradError as error:
        return Check("ledger", "failed", _one_line(error), "`hushgrad verify` tells more")
    if os.stat(path).st_mode & 0o077:
        return Check("ledger", "warning", f"{path.absolute()} may be read or written by others", f"chmod 600 {path}")
    return Check("ledger", "ok", f"{path.absolute()}: {head.sequence} entries on {len(datasets)} datasets")


def _filesystem(folder: Path) -> Check:
    kind = _kind_of_filesystem(folder)
    if kind in _LOST_AT_REBOOT:
        return Check("storage", "warning", f"{folder} is {kind}: it forgets", "Keep the ledger on a local disk")
    if kind in _OVER_THE_NETWORK or kind.startswith("fuse"):
        return Check("storage", "failed", f"{folder} is {kind}: a charge is not known to be durable there", "Keep the ledger on a local disk")
    if kind == "overlay":
        return Check("storage", "warning", f"{folder} is in a container's own layer: it goes with the container", "Mount a volume for the ledger")
    return Check("storage", "ok", f"{folder} is {kind or 'of unknown kind'}; back it up, and keep `hushgrad ledger status` elsewhere")


def _kind_of_filesystem(folder: Path) -> str:
    """By the longest mount point that holds the folder; "" where the system does not tell."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if folder.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
