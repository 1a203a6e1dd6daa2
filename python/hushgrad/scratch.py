"""Scratch directories whose contents die with the run: nothing in them can be opened afterwards, by anybody."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument, InvalidState, IoError, Unsupported

__all__ = ["Scratch"]

_DATASET = "hushgrad scratch"
_PREFIX = "hushgrad-scratch-"
_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")

# Outlives the run by a moment: its standard input ends when the last process of the run does, however that ended.
_CLEANER = "import shutil,sys; sys.stdin.buffer.read(); [shutil.rmtree(p, ignore_errors=True) for p in sys.argv[1:]]"


class Scratch:
    """A directory for what must be on disk for a while: spilled batches, activations, caches.

    ``put``, ``get``, ``save`` and ``load`` keep sealed files under a key that was made for this object, is in memory only,
    and is wiped at ``close()``, at the end of the ``with`` block and at exit: of a killed run, ciphertext without a key
    remains until the next Scratch in the same place removes it.

    ``compile_cache()`` is for programs that want plain files, such as torch.compile: a directory in memory (tmpfs), never
    on disk, which is removed when the run ends, even when it is killed.

    Forked DataLoader workers may use it; it cannot be pickled, so spawned ones cannot.

    Args:
        folder: where to make the directory; the system's temporary folder by default. Any disk will do.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        root = Path(folder) if folder is not None else Path(tempfile.gettempdir())
        self._keys = _core.EphemeralKeys()
        self.path, self._lock = _make(root)
        self._caches: list[Any] = []
        self._closed = weakref.finalize(self, _close, os.getpid(), self._keys, self.path, self._lock, self._caches)

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes under a name; what had the name before is replaced. Raises IoError when the disk is full."""
        view = memoryview(data).cast("B")
        _core.write_sealed(self._file(name), {"dataset": _DATASET}, "{}", [("data", "U8", [len(view)], view)], self._core, overwrite=True)

    def get(self, name: str) -> bytes:
        """The bytes of a name. Raises InvalidArgument for an unknown one, SealError for a file that was altered."""
        path = self._existing(name)
        return _core.SealedReader(path, self._core).read("data")

    def save(self, name: str, state: Any) -> None:
        """Keep nested state with tensors, as ``hushgrad.checkpoint.save`` does. Needs torch."""
        from hushgrad import checkpoint

        checkpoint.save(self._file(name), state, keyring=self._core, dataset=_DATASET, overwrite=True)

    def load(self, name: str) -> Any:
        """The state that was saved under a name."""
        from hushgrad import checkpoint

        return checkpoint.load(self._existing(name), keyring=self._core).state

    def remove(self, name: str) -> None:
        """Forget a name. Raises InvalidArgument for an unknown one."""
        os.unlink(self._existing(name))

    @contextlib.contextmanager
    def compile_cache(self) -> Iterator[Path]:
        """A plain directory in memory; TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR name it inside the block.

        Compiled code and its constants may hold weights. Raises Unsupported on a machine without a tmpfs. What the system
        swaps out it writes to its swap: `hushgrad doctor` says whether that is encrypted or off.
        """
        self._require_open()
        folder = _in_memory()
        cleaner = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CLEANER, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._caches.append((cleaner, folder))
        before = {name: os.environ.get(name) for name in _CACHES}
        os.environ.update({name: str(folder / name.split("_")[0].lower()) for name in _CACHES})
        try:
            yield folder
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            self._caches.remove((cleaner, folder))
            _clean(cleaner, folder)

    def close(self) -> None:
        """Wipe the key and remove the directory. Twice is fine."""
        self._closed()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise Unsupported("[scratch] Expected Scratch to stay in the process that made it, or its forks: its key is never written. Fork the workers.")

    def __repr__(self) -> str:
        return f"Scratch({str(self.path)!r})"

    @property
    def _core(self) -> Any:
        self._require_open()
        return self._keys

    def _require_open(self) -> None:
        if not self._closed.alive:
            raise InvalidState("[scratch] Expected an open scratch directory, received a closed one. Make a new one.")

    def _file(self, name: str) -> str:
        if not name:
            raise InvalidArgument("[scratch] Expected a name, received an empty one.")
        return str(self.path / hashlib.sha384(name.encode()).hexdigest())

    def _existing(self, name: str) -> str:
        path = self._file(name)
        if not os.path.exists(path):
            raise InvalidArgument(f"[scratch] Expected a name that was put before, received {name!r}.")
        return path


def _make(root: Path) -> tuple[Path, int]:
    _sweep(root)
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError as error:
        raise IoError(f"[scratch] Expected to make a directory in {root}, received: {error.strerror}. Check the path and its permissions.") from None
    return path, lock


def _sweep(root: Path) -> None:
    """Remove what killed runs of this user left: directories that no process holds."""
    with contextlib.suppress(OSError):
        for path in root.glob(_PREFIX + "*"):
            with contextlib.suppress(OSError):
                if path.is_symlink() or path.stat().st_uid != os.geteuid():
                    continue
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(lock)


def _close(owner: int, keys: Any, path: Path, lock: int, caches: list[Any]) -> None:
    keys.destroy()
    if os.getpid() != owner:  # a forked worker that ends leaves the files of the others alone
        return
    for cleaner, folder in caches:
        _clean(cleaner, folder)
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _clean(cleaner: Any, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    cleaner.stdin.close()
    cleaner.wait()


def _in_memory() -> Path:
    for root in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):
        if root and os.path.isdir(root) and os.access(root, os.W_OK) and _is_in_memory(root):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    raise Unsupported("[scratch] Expected a file system in memory (tmpfs) at $XDG_RUNTIME_DIR or /dev/shm, received none. Mount one, or compile without a cache.")


def _is_in_memory(root: str) -> bool:
    """Whether the mount that holds ``root`` is a tmpfs or ramfs."""
    best, kind = "", ""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, mount, name = line.split(" ")[:3]
            if os.path.realpath(root).startswith(mount) and len(mount) >= len(best):
                best, kind = mount, name
    return kind in ("tmpfs", "ramfs")
