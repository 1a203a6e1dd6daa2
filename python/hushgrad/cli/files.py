"""Small text files that a command reads: keys, notes, signatures, events. A device or a huge file is refused, not read to its end."""

from __future__ import annotations

import sys
from pathlib import Path

from hushgrad.errors import InvalidArgument

__all__ = ["read_small"]

_MOST = 2**24


def read_small(path: Path | str) -> str:
    """The text of a file of at most 16 MiB, in UTF-8; "-" is standard input.

    Raises InvalidArgument for a longer one, OSError and UnicodeDecodeError as Python does.
    """
    if str(path) == "-":
        content = sys.stdin.buffer.read(_MOST + 1)
    else:
        with open(path, "rb") as file:
            content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise InvalidArgument(f"[files] Expected a text of at most 16 MiB, received more in {path}. Check which file that is.")
    return content.decode("utf-8")
