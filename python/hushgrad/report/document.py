"""The envelope of a report: schema, digest over the content, signature over both."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import rfc8785

from hushgrad.errors import InvalidArgument

Json = dict[str, Any]

SCHEMA = "hushgrad.report"
SCHEMA_VERSION = 1
CONTEXT = "hushgrad report 1"
"""What a signature of a document is made for; one for anything else does not verify here."""


class PublicKeyLike(Protocol):
    """What is used of `hushgrad.signing.PublicKey`."""

    @property
    def pem(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def algorithm(self) -> str: ...


class Signer(Protocol):
    """What is used of `hushgrad.signing.SigningKey`."""

    @property
    def id(self) -> str: ...
    @property
    def public_key(self) -> PublicKeyLike: ...
    def sign(self, context: str, message: bytes) -> bytes: ...


def sealed(content: Json, sign: Signer | None) -> Json:
    """The document around `content`, signed where there is a key."""
    document: Json = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "digest": digest(content), "content": content}
    if sign is None:
        return document
    key = sign.public_key
    signature = {
        "algorithm": key.algorithm,
        "context": CONTEXT,
        "over": "RFC 8785 canonical JSON of the document without signature",
        "key_id": key.id,
        "public_key": key.pem,
        "value": base64.b64encode(sign.sign(CONTEXT, rfc8785.dumps(document))).decode(),
    }
    return {**document, "signature": signature}


def signed_bytes(document: Mapping[str, Any]) -> bytes:
    """What the signature of a document is over."""
    return rfc8785.dumps({key: value for key, value in document.items() if key != "signature"})


def digest(content: Mapping[str, Any]) -> Json:
    """SHA-384 of the canonical JSON (RFC 8785) of `content`."""
    return {
        "algorithm": "SHA-384",
        "over": "RFC 8785 canonical JSON of content",
        "value": hashlib.sha384(rfc8785.dumps(dict(content))).hexdigest(),
    }


def check(document: Mapping[str, Any]) -> None:
    """Raises InvalidArgument for another document, a newer schema, or content that does not match its digest."""
    if document.get("schema") != SCHEMA or document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidArgument(
            f"[report] Expected a {SCHEMA} document of version {SCHEMA_VERSION}, received schema"
            f" {document.get('schema')!r} version {document.get('schema_version')!r}. Build it with"
            " hushgrad.report.build."
        )
    if digest(document["content"]) != document.get("digest"):
        raise InvalidArgument(
            "[report] Expected content that matches its digest, received an altered document. Build the report again"
            " from the ledger."
        )
