"""Whether this machine is fit for private training: libraries, cryptography, where the budget is kept. Works without PyTorch."""

from __future__ import annotations

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
    why: str = ""
    """Why it matters, where that is not obvious."""


def check_environment(ledger: str | os.PathLike[str] | None = None) -> list[Check]:
    """Looks at the package, its compiled parts, OpenSSL, PyTorch, the processor and the ledger's place. Writes nothing.

    ledger: path of the budget ledger; default ``hushgrad.ledger.db`` in the working directory.
    """
    return [
        _package(),
        _compiled_core(),
        *_openssl(),
        _sqlite(),
        _postgresql(),
        _torch_version(),
        _compiled_training(),
        _processor(),
        _openmp(),
        _forks(),
        _temporary_folder(),
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


# (first version, first version without it, what it is). Of versions as released; distributions mend older ones.
_Known = tuple[tuple[int, ...], tuple[int, ...], str]
_OPENSSL_KNOWN: tuple[_Known, ...] = (
    ((3, 0, 4), (3, 0, 5), "CVE-2022-2274, memory corruption on AVX-512 processors"),
    ((3, 0, 0), (3, 0, 7), "CVE-2022-3602, overflow in certificate checks"),
    ((3, 0, 0), (3, 0, 12), "CVE-2023-5363, key and IV lengths of ciphers"),
    ((3, 1, 0), (3, 1, 4), "CVE-2023-5363, key and IV lengths of ciphers"),
)
_SQLITE_KNOWN: tuple[_Known, ...] = (((1, 0, 12), (3, 39, 2), "CVE-2022-35737, overflow with very long strings"),)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _known_bad(version: str, known: tuple[_Known, ...]) -> str:
    return "; ".join(what for first, mended, what in known if first <= _version(version) < mended)


def _facts() -> dict[str, str]:
    facts: dict[str, str] = importlib.import_module("hushgrad._core").build_facts()
    return facts


def _openssl() -> Iterator[Check]:
    try:
        facts = _facts()
    except (ImportError, AttributeError):
        yield Check("OpenSSL", "warning", "cannot be told without the compiled core")
        return
    version = facts["openssl"]
    bad = _known_bad(version, _OPENSSL_KNOWN)
    if bad:
        yield Check("OpenSSL", "warning", f"{version}: {bad}", "Update it, unless your distribution says that it mended this")
    else:
        yield Check("OpenSSL", "ok", f"OpenSSL {version} ({_loaded_library('libcrypto') or 'linked in'})")
    if _version(version)[:2] < _version(facts["openssl_built"])[:2]:
        yield Check("OpenSSL build", "warning", f"hushgrad was built for {facts['openssl_built']}", f"Load OpenSSL {facts['openssl_built']} or newer")


def _sqlite() -> Check:
    try:
        version = _facts()["sqlite"]
    except (ImportError, AttributeError):
        return Check("SQLite", "warning", "cannot be told without the compiled core")
    bad = _known_bad(version, _SQLITE_KNOWN)
    if bad:
        return Check("SQLite", "warning", f"{version}: {bad}", "Update it, unless your distribution says that it mended this")
    if _version(version) < (3, 51, 3):  # sqlite.org/wal.html, "The WAL-Reset Bug"
        return Check("SQLite", "ok", f"{version}; its fault in WAL mode does not touch the ledger, which uses a rollback journal")
    return Check("SQLite", "ok", version)


def _postgresql() -> Check:
    try:
        version = _facts()["libpq"]
    except (ImportError, AttributeError):
        return Check("PostgreSQL", "warning", "cannot be told without the compiled core")
    if version == "not built in":
        return Check("PostgreSQL", "ok", "not built in: ledgers are files", "For ledgers in PostgreSQL install libpq and build hushgrad again")
    return Check("PostgreSQL", "ok", f"libpq {version}")


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
    vectors = [name for name in ("avx2", "avx512f", "vaes") if name in _processor_flags()]
    told = f"{platform.machine()}, {count} usable cores, {', '.join(vectors) if vectors else 'no AVX2'}"
    return Check("processor", "ok", told, "" if vectors else "Everything works, slower")


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, flags=re.MULTILINE)
    return set(match.group(1).split()) if match else set()


def _openmp() -> Check:
    """Several runtimes in one process share no threads, and can hang after a fork."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        maps = ""
    loaded = sorted({Path(path).name for path in re.findall(r"/\S*/lib(?:gomp|omp|iomp5)[^/\s]*\.so[^/\s]*", maps)})
    families = {re.sub(r"[-.].*", "", name) for name in loaded}
    threads = os.environ.get("OMP_NUM_THREADS")
    told = f"{', '.join(loaded) or 'not loaded'}; {f'OMP_NUM_THREADS={threads}' if threads else 'as many threads as cores'}"
    if threads is not None and not threads.replace(",", "").isdigit():
        return Check("OpenMP", "warning", told, "Set OMP_NUM_THREADS to a number")
    if len(families) > 1:
        return Check("OpenMP", "warning", f"{told}: two kinds in one process", "Install torch from one source; do not mix conda and pip")
    return Check("OpenMP", "ok", told)


def _forks() -> Check:
    import multiprocessing

    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    told = f"workers start by {method}; random streams and ledgers notice a fork"
    return Check("forks", "ok", told, "Open the ledger again in a child process" if method == "fork" else "")


def _temporary_folder() -> Check:
    import tempfile

    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return Check("temporary files", "failed", "no folder for temporary files may be written to", "Set TMPDIR")
    return Check("temporary files", "ok", folder)


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
        return Check("ledger", "failed", _one_line(error), "`hushgrad ledger verify` tells more")
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
