"""Files that a user names: a device, a pipe or a huge file is refused, not read to its end."""

from __future__ import annotations

import os
import stat

from hushgrad.errors import InvalidArgument, IoError

__all__ = ["read_bytes", "read_text"]


def read_bytes(path: str | os.PathLike[str], what: str, *, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes; ``what`` it should be, for errors.

    Raises ``IoError`` when it cannot be read, ``InvalidArgument`` for anything else than such a file.
    """
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidArgument(f"[{what}] Expected a regular file, received {os.fspath(path)}, which is none. Check which file that is.")
            content = file.read(most + 1)
    except ValueError as error:  # a path with a NUL in it
        raise InvalidArgument(f"[{what}] Expected a path, received: {error}.") from error
    except OSError as error:
        raise IoError(f"[{what}] Expected a readable {what} at {os.fspath(path)}, received: {error.strerror}. Check the path.") from error
    if len(content) > most:
        raise InvalidArgument(
            f"[{what}] Expected at most {most} bytes, received more in {os.fspath(path)}. Check which file that is."
        )
    return content


def read_text(path: str | os.PathLike[str], what: str, *, most: int) -> str:
    """The same as UTF-8; ``InvalidArgument`` for other bytes."""
    try:
        return read_bytes(path, what, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"[{what}] Expected UTF-8 text at {os.fspath(path)}, received bytes.") from error
