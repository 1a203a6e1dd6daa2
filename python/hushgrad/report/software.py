"""What the report was made with: the software bill of materials, and a digest to compare machines by."""

import ctypes
import hashlib
import platform
import re
import sqlite3
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import rfc8785

Json = dict[str, Any]


def describe() -> Json:
    """Name and version of this package, and everything installed beside it.

    `sbom.sha384` is the digest of the canonical JSON of `sbom.components`: equal digests, equal software.
    """
    components = [{"type": kind, "name": name, "version": number} for kind, name, number in sorted(_components())]
    return {
        "name": "hushgrad",
        "version": own_version(),
        "sbom": {
            "of": "the machine that made this report",
            "sha384": hashlib.sha384(rfc8785.dumps(components)).hexdigest(),
            "components": components,
        },
    }


def own_version() -> str:
    """The version of this package, "unknown" where it runs from a folder without being installed."""
    try:
        return version("hushgrad")
    except PackageNotFoundError:
        return "unknown"


def _components() -> set[tuple[str, str, str]]:
    found = {("python-package", name, item.version) for item in distributions() if (name := item.metadata["Name"])}
    found.add(("interpreter", platform.python_implementation(), platform.python_version()))
    found.add(("library", "SQLite (Python)", sqlite3.sqlite_version))
    if openssl := _openssl():
        found.add(("library", "OpenSSL", openssl))
    return found


def _openssl() -> str | None:
    """Of the library that the core has loaded: not necessarily the one Python was built with."""
    try:
        found = re.search(r"(/\S*/libcrypto[^/\s]*\.so[^/\s]*)", Path("/proc/self/maps").read_text())
        if found is None:
            return None
        ask = ctypes.CDLL(found.group(1)).OpenSSL_version
        ask.restype = ctypes.c_char_p
        return str(ask(0).decode(errors="replace"))
    except (OSError, AttributeError):
        return None
