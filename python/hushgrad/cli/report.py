"""`hushgrad report`: the budget report of a ledger, in every format."""

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hushgrad.keys import Keyring
    from hushgrad.signing import SigningKey


class Format(str, Enum):
    """What to write."""

    html = "html"
    json = "json"
    pdf = "pdf"
    csv = "csv"
    md = "md"
    model_card = "model-card"
    croissant = "croissant"


class Paper(str, Enum):
    """Of a PDF."""

    a4 = "a4"
    letter = "letter"


_ENDINGS = {".json": Format.json, ".pdf": Format.pdf, ".csv": Format.csv, ".md": Format.md, ".jsonld": Format.croissant}


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("report")(report)


def report(
    ledger: Annotated[str, typer.Option(help="The ledger: a file or postgresql://...")] = "hushgrad.ledger.db",
    dataset: Annotated[str | None, typer.Option(help="Only this dataset. Default: all of the ledger.")] = None,
    run: Annotated[str | None, typer.Option(help="List this run only; totals still count every run.")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Chance at which epsilon may fail, in (0, 1). Default: the budget's delta.")
    ] = None,
    format: Annotated[  # noqa: A002
        Format | None, typer.Option(help="Default: by the ending of --output, html without one.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
    sign_key: Annotated[Path | None, typer.Option(help="Sign with this private key (PEM).")] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="File whose first line opens --sign-key.")] = None,
    keyring: Annotated[Path | None, typer.Option(help="List the keys of this keyring, and verify its log.")] = None,
    keyring_passphrase_file: Annotated[Path | None, typer.Option(help="File whose first line opens --keyring.")] = None,
    certificate: Annotated[
        list[Path] | None, typer.Option(help="A certificate of destruction; may be given several times.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Render this JSON report instead of reading a ledger.")
    ] = None,
    paper: Annotated[Paper, typer.Option(help="Of a PDF.")] = Paper.a4,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Reports what was spent and what is left.

    Exit code 1 when the ledger does not verify (the report says so).
    """
    from hushgrad.ledger import Ledger
    from hushgrad.report import build, render

    signer = _signer(sign_key, passphrase_file)
    document: Any = (
        _read(source)
        if source is not None
        else build(
            Ledger(ledger, create=False),
            dataset=dataset,
            run=run,
            delta=delta,
            sign=signer,
            keyring=_keyring(keyring, keyring_passphrase_file),
            certificates=[path.read_text(encoding="utf-8") for path in certificate or []],
        )
    )
    chosen = Format.json if json else format or _ENDINGS.get(output.suffix.lower() if output else "", Format.html)
    page = render(document, chosen.value, sign=signer, paper=paper.value)
    if output is None:
        sys.stdout.buffer.write(page if page.endswith(b"\n") else page + b"\n")
    else:
        _write(output, page)
    if not document["content"]["ledger"]["chain"]["ok"]:
        raise typer.Exit(1)


def _signer(path: Path | None, passphrase_file: Path | None) -> "SigningKey | None":
    if path is None:
        return None
    from hushgrad.keys import read_passphrase
    from hushgrad.signing import SigningKey

    return SigningKey.load(path, read_passphrase(passphrase_file) if passphrase_file else None)


def _keyring(path: Path | None, passphrase_file: Path | None) -> "Keyring | None":
    if path is None:
        return None
    from hushgrad.keys import Keyring, read_passphrase

    return Keyring(path, passphrase=read_passphrase(passphrase_file) if passphrase_file else None)


def _read(path: Path) -> Any:
    from hushgrad.errors import InvalidArgument
    from hushgrad.report.verify import read_document

    try:
        return read_document(path)
    except ValueError as error:
        raise InvalidArgument(f"[report] Expected a report in {path}, received something else: {error}. Pass a report.") from error


def _write(output: Path, page: bytes) -> None:
    from hushgrad.errors import IoError

    try:
        output.write_bytes(page)
    except OSError as error:
        raise IoError(
            f"[report] Expected a file that can be written, received {output}: {error.strerror}. Pass another --output."
        ) from error
