"""Verification of reports: untouched ones pass, every kind of tampering fails, and what is not proven is said."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from report_ledger import STEP, full_ledger, run_steps
from typer.testing import CliRunner

from hushgrad.cli import report as cli_report
from hushgrad.cli import verify as cli_verify
from hushgrad.errors import InvalidArgument, IoError
from hushgrad.ledger import Ledger
from hushgrad.report import build, file_seal, render, verify_report
from hushgrad.report.document import digest
from hushgrad.signing import SigningKey

Document = dict[str, Any]


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return full_ledger(str(tmp_path_factory.mktemp("ledger") / "budget.db"))


@pytest.fixture(scope="module")
def signed(ledger: Ledger, key: SigningKey) -> Document:
    return json.loads(render(build(ledger, sign=key), "json"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def unsigned(ledger: Ledger) -> Document:
    return json.loads(render(build(ledger), "json"))  # type: ignore[no-any-return]


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Any]:
    def run(data: bytes | Document, **more: Any) -> Any:
        path = tmp_path / "report"
        path.write_bytes(data if isinstance(data, bytes) else rfc8785.dumps(data))
        return verify_report(path, **more)

    return run


def statuses(found: Any) -> dict[str, str]:
    return {item.name: item.status for item in found.checks}


# --- what passes -----------------------------------------------------------------------------------------------------


def test_signed_report_by_a_trusted_key(check: Any, signed: Document, key: SigningKey, ledger: Ledger, tmp_path: Path) -> None:
    pem = tmp_path / "signer.pem"
    pem.write_text(key.public_key.pem)
    for trusted in (key.public_key, key.id, key.id.upper(), str(pem)):
        found = check(signed, key=trusted, ledger=ledger)
        assert found and set(statuses(found).values()) == {"ok", "unknown"}
        assert statuses(found) == {"document": "ok", "digest": "ok", "signature": "ok", "chain": "unknown", "ledger": "ok"}
        assert "the key that was expected" in found.sentence and "who made it" not in found.sentence


def test_nobody_is_vouched_for_without_a_key(check: Any, signed: Document, key: SigningKey) -> None:
    found = check(signed)
    assert found and f"signature by {key.id}, which nobody vouched for" in found.sentence
    assert "not proven: who made it" in found.sentence and "that every use of the data is in that ledger" in found.sentence
    assert found.sentence.count(". ") == 0 and found.sentence.endswith(".")


def test_unsigned_report_proves_little_and_says_so(check: Any, unsigned: Document, key: SigningKey) -> None:
    found = check(unsigned)
    assert found and "anybody could have made it" in found.sentence and "who made it" in found.sentence
    assert not check(unsigned, key=key.id)


def test_reformatted_json_is_the_same_document(check: Any, signed: Document, key: SigningKey) -> None:
    assert check(json.dumps(signed, indent=4, ensure_ascii=True).encode(), key=key.id)


def test_pages_pass_as_rendered(check: Any, signed: Document, unsigned: Document, key: SigningKey) -> None:
    assert check(render(signed, sign=key), key=key.id)
    assert check(render(signed), key=key.id)  # rendered by somebody without the key: compared byte by byte
    found = check(render(unsigned))
    assert found and statuses(found)["pages"] == "ok"


def test_pdf_from_a_single_file(check: Any, signed: Document, key: SigningKey) -> None:
    pytest.importorskip("weasyprint")
    page = render(signed, "pdf", sign=key)
    found = check(page, key=key.id)
    assert found and found.kind == "pdf" and statuses(found)["pages"] == "ok"
    drawn = page.index(b"stream") + 20  # the first stream is what the first page shows
    page_changed = page[:drawn] + bytes([page[drawn] ^ 1]) + page[drawn + 1 :]
    assert not check(page_changed, key=key.id) and not check(page_changed)
    assert not check(page + b"\n%%EOF\n", key=key.id)
    body = file_seal.read(page).body  # type: ignore[union-attr]
    resealed = file_seal.append(file_seal.read(page_changed).body, "pdf", None)  # type: ignore[union-attr]
    assert not check(resealed, key=key.id) and statuses(check(resealed))["pages"] == "unknown"
    assert "that the pages show that content" in check(resealed).sentence
    assert not check(file_seal.append(body + body, "pdf", None))  # two documents: which one was meant?


# --- what does not ---------------------------------------------------------------------------------------------------


def altered(document: Document, change: Callable[[Document], None], *, honest_digest: bool) -> Document:
    made = copy.deepcopy(document)
    change(made)
    if honest_digest:
        made["digest"] = digest(made["content"])
    return made


CHANGES: dict[str, Callable[[Document], Any]] = {
    "spent": lambda d: d["content"]["datasets"][0]["spent"].update(upper=0.1),
    "delta": lambda d: d["content"]["datasets"][0].update(delta=1e-3),
    "run": lambda d: d["content"]["datasets"][0]["runs"].pop(),
    "not covered": lambda d: d["content"]["not_covered"].clear(),
    "verdict": lambda d: d["content"]["controls"][0]["rows"][0].update(verdict="partial"),
    "head": lambda d: d["content"]["ledger"]["head"].update(hash="0" * 96),
    "signer": lambda d: d["content"].update(signer=None),
    "new field": lambda d: d["content"].update(extra=1),
}


@pytest.mark.parametrize("honest_digest", [False, True], ids=["digest left", "digest made anew"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_content_fails(check: Any, signed: Document, change: Any, honest_digest: bool) -> None:
    made = altered(signed, change, honest_digest=honest_digest)
    found = check(made)
    assert not found and found.sentence.startswith("Do not rely on this report: ")


def test_signatures_cannot_be_moved_or_removed(check: Any, signed: Document, unsigned: Document, key: SigningKey) -> None:
    other = SigningKey.generate()
    without = {name: value for name, value in signed.items() if name != "signature"}
    assert "the signature is gone" in check(without).sentence
    assert not check({**unsigned, "signature": signed["signature"]})
    swapped = {**signed["signature"], "public_key": other.public_key.pem}
    assert not check({**signed, "signature": swapped})
    assert not check({**signed, "signature": {**swapped, "key_id": other.id}})
    assert not check({**signed, "signature": {**signed["signature"], "value": "not base64!"}})
    assert not check({**signed, "signature": "none"})
    assert f"signature by {key.id}, and {other.id} was expected" in check(signed, key=other.public_key).sentence
    content = {**unsigned["content"], "signer": other.id}
    for named in (unsigned["content"], content):  # a signature by a key that the content does not name, or names wrongly
        made = {**unsigned, "content": named, "digest": digest(named)}
        value = base64.b64encode(key.sign("hushgrad report 1", rfc8785.dumps(made))).decode()
        assert "name different signers" in check({**made, "signature": {**signed["signature"], "value": value}}).sentence
    for_something_else = other.sign("hushgrad approval 1", b"x")
    assert not other.public_key.verify("hushgrad report 1", b"x", for_something_else)


def test_files_that_are_no_report(check: Any, signed: Document) -> None:
    text = rfc8785.dumps(signed)
    duplicated = text.replace(b'{"content":', b'{"content":{},"content":', 1)
    deep = b"[" * 100_000
    for data in (b"", b"{}", b"[]", b"null", b"{", duplicated, b'{"a":' + deep, text[:-2], b"%PDF-1.7\n", b"<html>", b"\xff\xfe",
                 text.replace(b"4", b"NaN", 1), rfc8785.dumps({**signed, "schema_version": 2}), rfc8785.dumps({**signed, "x": 1})):  # fmt: skip
        assert not check(data)
    assert not check(rfc8785.dumps({**signed, "content": {}}))
    assert not check({**{name: value for name, value in signed.items() if name != "signature"}, "x": 1})


def test_a_report_of_a_broken_ledger_fails(check: Any, unsigned: Document) -> None:
    def broken(document: Document) -> None:
        document["content"]["ledger"]["chain"].update(ok=False, reason="entry 3")

    assert "did not verify" in check(altered(unsigned, broken, honest_digest=True)).sentence

    def early(document: Document) -> None:
        document["content"]["ledger"]["head"]["sequence"] -= 1

    assert not check(altered(unsigned, early, honest_digest=True))


def test_pages_that_show_something_else_fail(check: Any, signed: Document, unsigned: Document, key: SigningKey) -> None:
    for document, sign in ((signed, key), (signed, None), (unsigned, None)):
        page = render(document, sign=sign)
        headline = document["content"]["datasets"][0]["summary"]["headline"].encode()
        lie = page.replace(headline, b"At most 0.01 of 4.00 has been spent; 3.99 is left.", 1)
        assert lie != page and not check(lie)
        body = file_seal.read(lie).body  # type: ignore[union-attr]
        assert not check(file_seal.append(body, "html", None))
        assert not check(file_seal.append(body, "html", SigningKey.generate()))
        assert not check(page + b"<p>more</p>") and not check(page[:-30])
        assert not check(page.replace(b"<main", b"<p>All is well.</p><main", 1))


# --- against a ledger ------------------------------------------------------------------------------------------------


def test_against_the_ledger(check: Any, tmp_path: Path, unsigned: Document, ledger: Ledger) -> None:
    def cheaper(document: Document) -> None:
        document["content"]["datasets"][0]["spent"]["upper"] = 0.1

    lie = altered(unsigned, cheaper, honest_digest=True)
    assert check(lie)  # unsigned: only the ledger tells
    assert "shows something else" in check(lie, ledger=ledger).sentence
    assert not check(unsigned, ledger=full_ledger(str(tmp_path / "other.db")))
    grown = full_ledger(str(tmp_path / "grown.db"))
    before = build(grown, delta=1e-4)
    assert check(before, ledger=grown)
    run_steps(grown, "ward-7", STEP, 1, purpose="triage")
    assert "grown by" in check(before, ledger=grown).sentence


# --- command line ----------------------------------------------------------------------------------------------------


def command(module: Any, *arguments: object) -> Any:
    import typer

    app = typer.Typer()
    app.callback()(lambda: None)
    module.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_commands(ledger: Ledger, key: SigningKey, tmp_path: Path) -> None:
    private, public, report = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "r.json"
    key.save(private, "correct horse")
    public.write_text(key.public_key.pem)
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "passphrase").chmod(0o600)
    made = command(cli_report, "report", "--ledger", ledger.path, "--output", report, "--sign-key", private,
                   "--passphrase-file", tmp_path / "passphrase")  # fmt: skip
    assert made.exit_code == 0, made.output
    page = tmp_path / "r.html"
    assert command(cli_report, "report", "--from", report, "--output", page).exit_code == 0
    for file in (report, page):
        checked = command(cli_verify, "verify", file, "--key", public, "--ledger", ledger.path)
        assert checked.exit_code == 0 and "the key that was expected" in checked.output, checked.output
    told = command(cli_verify, "verify", report, "--json")
    assert told.exit_code == 0 and json.loads(told.stdout)["ok"] is True
    report.write_text(report.read_text().replace("triage", "triagf", 1))
    failed = command(cli_verify, "verify", report, "--json")
    assert failed.exit_code == 1 and json.loads(failed.stdout)["sentence"].startswith("Do not rely")


def test_bad_arguments(tmp_path: Path, check: Any, signed: Document) -> None:
    with pytest.raises(IoError):
        verify_report(tmp_path / "absent")
    for wrong in ("no such file", "abcd", str(tmp_path)):
        with pytest.raises(InvalidArgument, match="public key"):
            check(signed, key=wrong)
