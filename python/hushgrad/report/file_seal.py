"""The last line of a rendered file: a digest, and with a key a signature, of every byte before it.

The document inside a page is signed by itself. This line is about what a reader sees around it.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

from hushgrad.report.document import Signer

CONTEXT = "hushgrad report file 1"

Kind = Literal["html", "pdf"]

_BEFORE = {"html": b"<!-- hushgrad-file ", "pdf": b"%hushgrad-file "}
_AFTER = {"html": b" -->\n", "pdf": b"\n"}
_LINE = re.compile(rb"(?:<!-- hushgrad-file (\{[^{}\n]{1,2000}\}) -->|%hushgrad-file (\{[^{}\n]{1,2000}\}))\r?\n?\Z")


@dataclass(frozen=True)
class FileSeal:
    """What the last line of a file says, and the bytes it speaks of."""

    body: bytes
    digest: str
    key_id: str | None
    signature: bytes | None

    @property
    def intact(self) -> bool:
        """Whether the digest is that of the body."""
        return hashlib.sha384(self.body).hexdigest() == self.digest


def append(body: bytes, kind: Kind, sign: Signer | None) -> bytes:
    """`body`, ending in a line of its own, and the seal."""
    body = body if body.endswith(b"\n") else body + b"\n"
    seal = {"sha384": hashlib.sha384(body).hexdigest()}
    if sign is not None:
        seal |= {"key_id": sign.id, "signature": base64.b64encode(sign.sign(CONTEXT, body)).decode()}
    return body + _BEFORE[kind] + json.dumps(seal, sort_keys=True).encode() + _AFTER[kind]


def read(data: bytes) -> FileSeal | None:
    """The seal of a file, None where its last line is none."""
    found = _LINE.search(data[-4096:])
    if found is None:
        return None
    try:
        fields = json.loads(found.group(1) or found.group(2))
        signature = fields.get("signature")
        return FileSeal(
            body=data[: len(data) - (min(len(data), 4096) - found.start())],
            digest=str(fields["sha384"]),
            key_id=None if signature is None else str(fields["key_id"]),
            signature=None if signature is None else base64.b64decode(signature, validate=True),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
