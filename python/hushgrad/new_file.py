"""Small texts in new files: whole or not at all, and never over something that stands there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hushgrad.errors import IoError

__all__ = ["new_file", "write_new"]

_Path = str | os.PathLike[str]


def write_new(path: _Path, text: str, what: str) -> None:
    """Write ``text`` where nothing stands yet; ``what`` it is, for errors. ``IoError``; then nothing is left."""
    with new_file(path, what) as write:
        write(text)


@contextlib.contextmanager
def new_file(path: _Path, what: str) -> Iterator[Callable[[str], None]]:
    """Make room for a text before what it is to tell of happens: afterwards it is too late to find that there is none.

    Call what is yielded once, with the text; it is on disk under its name when that returns. ``IoError`` there too.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.hgtmp")
    with _refusing(target, what):
        if os.path.lexists(target):
            raise FileExistsError(0, "something exists there")
        file = open(part, "x", encoding="utf-8")

    def write(text: str) -> None:
        with _refusing(target, what):
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            _rename_new(part, target)
            _sync_folder(target)

    try:
        yield write
    finally:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _refusing(target: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise IoError(f"[{what}] Expected to write {target}, where nothing may stand yet, received: {why}.") from error


def _rename_new(part: Path, target: Path) -> None:
    try:
        os.link(part, target)  # unlike a rename, it refuses what has come to stand there
    except PermissionError:  # a file system without hard links
        if os.path.lexists(target):
            raise
        os.rename(part, target)


def _sync_folder(target: Path) -> None:
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
