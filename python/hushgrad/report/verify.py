"""Checks a report from its file alone: digest, signature, chain head, and that a page shows what the document says.

    verdict = verify_report("report.html", key="clinic.pem")
    print(verdict.sentence)

Works without PyTorch. What each check proves is in docs/report.md.
"""

import base64
import binascii
import html
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hushgrad.errors import HushgradError, InvalidArgument
from hushgrad.ledger import Head, Ledger
from hushgrad.regular_file import read_bytes
from hushgrad.report import file_seal, page
from hushgrad.report.document import CONTEXT, SCHEMA, SCHEMA_VERSION, digest, signed_bytes
from hushgrad.report.software import own_version
from hushgrad.signing import PublicKey

Json = dict[str, Any]
Status = Literal["ok", "failed", "unknown"]

LARGEST = 512 * 2**20
_EMBEDDED = re.compile(r'<pre id="hushgrad-report" hidden>(.*?)</pre>', re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. "unknown": nothing is wrong, and nothing is proven."""

    name: str
    status: Status
    text: str


@dataclass(frozen=True)
class Verification:
    """Over the whole file. True in a condition exactly when nothing is wrong."""

    kind: Literal["json", "html", "pdf"]
    checks: tuple[Check, ...]
    sentence: str
    """What is proven and what is not."""

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok


def verify_report(
    path: str | os.PathLike[str], *, key: str | PublicKey | None = None, ledger: Ledger | None = None
) -> Verification:
    """Checks a report as JSON, HTML or PDF.

    Args:
        path: the file.
        key: of the signer who is trusted: a public key, the path of its PEM file, or its id (32 hexadecimal digits).
            With it, only a report signed by exactly this key passes. None: a signature is checked, and not who made it.
        ledger: also compare with this ledger: the head must be in it, and while it has not grown, every number.

    Raises:
        IoError: the file cannot be read.
        InvalidArgument: `key` is neither a key, nor a file, nor an id.
    """
    data = _read(path)
    kind = _kind(data)
    trusted = _trusted(key)
    try:
        document = _document(data, kind)
    except ValueError as error:
        return _verdict(kind, [Check("document", "failed", f"no report can be read from this file: {error}")], {})
    checks = [_schema(document)]
    if checks[0].status == "ok":
        try:
            checks += [_digest(document), _signature(document, trusted), _chain(document)]
            checks += [] if kind == "json" else [_pages(document, data, kind, trusted)]
            checks += [] if ledger is None else [_against(document, ledger)]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            checks.append(Check("document", "failed", f"it is not built like a report ({type(error).__name__})"))
    return _verdict(kind, checks, document)


def read_document(path: str | os.PathLike[str]) -> Json:
    """The document in a report of any kind, unchecked. Raises ValueError where there is none or more than one."""
    data = _read(path)
    return _document(data, _kind(data))


def _read(path: str | os.PathLike[str]) -> bytes:
    return read_bytes(path, "verify", most=LARGEST)


def _kind(data: bytes) -> Literal["json", "html", "pdf"]:
    if data.startswith(b"%PDF-"):
        return "pdf"
    return "json" if data.lstrip()[:1] == b"{" else "html"


def _trusted(key: str | PublicKey | None) -> str | None:
    """The id that has to have signed. Ids are 128 bits of a digest of the key: nobody finds a second key with the same."""
    if key is None or isinstance(key, PublicKey):
        return None if key is None else key.id
    if re.fullmatch(r"[0-9a-fA-F]{32}", key) and not os.path.exists(key):
        return key.lower()
    try:
        with open(key, encoding="ascii") as file:
            return PublicKey.from_pem(file.read(2**16)).id
    except (OSError, UnicodeDecodeError, HushgradError) as error:
        raise InvalidArgument(
            f"[verify] Expected a public key in PEM or an id of 32 hexadecimal digits, received {key!r}, which is neither."
            " Pass the file that the signer gave you."
        ) from error


def _document(data: bytes, kind: str) -> Json:
    if kind == "json":
        return _parsed(data.decode("utf-8"))
    if kind == "html":
        found = _EMBEDDED.findall(data.decode("utf-8"))
        if len(found) != 1:
            raise ValueError(f"it embeds {len(found)} documents instead of one")
        return _parsed(html.unescape(found[0]))
    attached = list(_attachments(data))
    if len(attached) != 1:
        raise ValueError(f"{len(attached)} documents are attached to it instead of one")
    return _parsed(attached[0].decode("utf-8"))


def _attachments(data: bytes) -> Iterator[bytes]:
    for found in _STREAM.finditer(data):
        try:
            text = zlib.decompressobj().decompress(found.group(1), LARGEST)
        except zlib.error:
            text = found.group(1)
        if text.lstrip().startswith(b'{"content":'):
            yield text


def _parsed(text: str) -> Json:
    def once(pairs: list[tuple[str, Any]]) -> Json:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key appears twice")
        return made

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def _schema(document: Json) -> Check:
    allowed = {"schema", "schema_version", "digest", "content", "signature"}
    if document.get("schema") != SCHEMA or not isinstance(document.get("content"), dict) or set(document) - allowed:
        return Check("document", "failed", f"it is no {SCHEMA} document")
    if document.get("schema_version") != SCHEMA_VERSION:
        return Check("document", "failed", f"its schema version is {document.get('schema_version')!r}, and this hushgrad reads {SCHEMA_VERSION}")
    return Check("document", "ok", f"{SCHEMA} version {SCHEMA_VERSION}")


def _digest(document: Json) -> Check:
    if digest(document["content"]) == document.get("digest"):
        return Check("digest", "ok", "the content matches its SHA-384 digest")
    return Check("digest", "failed", "the content does not match its digest: it was altered")


def _signature(document: Json, trusted: str | None) -> Check:
    signature, claimed = document.get("signature"), document["content"].get("signer")
    if signature is None:
        if claimed is not None:
            return Check("signature", "failed", f"it says that key {claimed} signed it, and the signature is gone")
        if trusted is not None:
            return Check("signature", "failed", f"it is not signed, and key {trusted} was expected")
        return Check("signature", "unknown", "it is not signed: anybody could have made it")
    signer = _public_key(signature["public_key"])
    if signer is None or signature["key_id"] != signer.id or claimed != signer.id:
        return Check("signature", "failed", "the signature, its key and the document name different signers")
    if not _verifies(signer, CONTEXT, signed_bytes(document), signature["value"]):
        return Check("signature", "failed", f"the signature of key {signer.id} does not fit the document")
    if trusted is None:
        return Check("signature", "unknown", f"signature by {signer.id}, which nobody vouched for")
    if trusted != signer.id:
        return Check("signature", "failed", f"signature by {signer.id}, and {trusted} was expected")
    return Check("signature", "ok", f"signature by {signer.id}, the key that was expected")


def _public_key(pem: object) -> PublicKey | None:
    try:
        return PublicKey.from_pem(str(pem))
    except HushgradError:
        return None


def _verifies(signer: PublicKey, context: str, message: bytes, value: object) -> bool:
    try:
        return signer.verify(context, message, base64.b64decode(str(value), validate=True))
    except (binascii.Error, ValueError):
        return False


def _chain(document: Json) -> Check:
    ledger = document["content"]["ledger"]
    if not ledger["chain"]["ok"]:
        return Check("chain", "failed", f"the report itself says that its ledger did not verify: {ledger['chain']['reason']}")
    if ledger["head"] is None or ledger["head"]["sequence"] != ledger["chain"]["entries_verified"]:
        return Check("chain", "failed", "the head is not the last of the entries that verified")
    return Check("chain", "unknown", f"the ledger verified up to entry {ledger['head']['sequence']}, {ledger['head']['hash'][:16]}…, says the report")


def _pages(document: Json, data: bytes, kind: str, trusted: str | None) -> Check:
    seal = file_seal.read(data)
    if seal is None or not seal.intact:
        return Check("pages", "failed", "the file was changed around the document: its last line does not fit the rest")
    if seal.signature is not None:
        block = document.get("signature")
        signer = None if block is None else _public_key(block["public_key"])
        if signer is None or seal.key_id != signer.id or not signer.verify(file_seal.CONTEXT, seal.body, seal.signature):
            return Check("pages", "failed", "the signature over the pages does not fit")
        return Check("pages", "ok", f"the pages as shown are signed by {signer.id}")
    if kind == "html" and _shows(document, seal.body):
        return Check("pages", "ok", "the page shows the document and nothing else")
    if kind == "html":
        made_by = document["content"]["software"]["version"]
        more = "" if made_by == own_version() else f" (it was made by hushgrad {made_by}, this is {own_version()})"
        return Check("pages", "failed", f"the page is not what this hushgrad makes of the document, and no signature covers it{more}")
    if trusted is not None:
        return Check("pages", "failed", "no signature covers the pages; only the document attached to them is signed")
    return Check("pages", "unknown", "no signature covers the pages; only the document attached to them was checked")


def _shows(document: Json, body: bytes) -> bool:
    try:
        return page.render_page(document) == body
    except Exception:  # whatever a forged document makes the templates do, it is not what they show
        return False


def _against(document: Json, ledger: Ledger) -> Check:
    said = document["content"]["ledger"]
    if not ledger.verify():
        return Check("ledger", "failed", "the ledger that was named does not verify")
    if said["id"] != ledger.id or not ledger.contains(Head(said["head"]["sequence"], said["head"]["hash"])):
        return Check("ledger", "failed", "the report's head is not in the ledger that was named")
    more = ledger.head().sequence - said["head"]["sequence"]
    if more:
        return Check("ledger", "ok", f"the report's head is in the ledger, which has grown by {more} since: more may be spent now")
    return _recomputed(document, ledger)


def _recomputed(document: Json, ledger: Ledger) -> Check:
    from hushgrad.report.build import build

    content = document["content"]
    given = [section["delta"] for section in content["datasets"] if section["delta_source"] == "argument"]
    again = build(ledger, dataset=content["scope"]["dataset"], run=content["scope"]["run"], delta=given[0] if given else None)
    if all(again["content"][part] == content[part] for part in ("datasets", "records", "ledger")):
        return Check("ledger", "ok", "every number is what this hushgrad reads from the ledger")
    if content["software"]["version"] != own_version():
        return Check("ledger", "unknown", "the head is in the ledger; another version of hushgrad computed the numbers")
    return Check("ledger", "failed", "the ledger has the same head, and the report shows something else than it holds")


def _verdict(kind: Literal["json", "html", "pdf"], checks: list[Check], document: Mapping[str, Any]) -> Verification:
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        return Verification(kind, tuple(checks), f"Do not rely on this report: {failed[0].text}.")
    by_name = {check.name: check for check in checks}
    head = document["content"]["ledger"]["head"]
    proven = [f"the content is unaltered since it was made ({by_name['signature'].text})"]
    if "pages" in by_name and by_name["pages"].status != "unknown":
        proven.append(by_name["pages"].text)
    proven.append(by_name["ledger"].text if "ledger" in by_name else f"it is about a ledger whose head was entry {head['sequence']}")
    open_ends = ["that every use of the data is in that ledger"]
    if by_name["signature"].status == "unknown":
        open_ends.insert(0, "who made it")
    if "pages" in by_name and by_name["pages"].status == "unknown":
        open_ends.insert(0, "that the pages show that content")
    if "ledger" not in by_name:
        open_ends.append("that the ledger holds what the report says")
    return Verification(kind, tuple(checks), f"Checked: {', '.join(proven)}; not proven: {', '.join(open_ends)}.")
