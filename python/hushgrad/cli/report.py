"""`hushgrad report`: the budget report of a ledger, as a page or as canonical JSON."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What to write."""

    html = "html"
    json = "json"


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("report")(report)


def report(
    ledger: Annotated[Path, typer.Option(help="The ledger file.")] = Path("hushgrad.ledger.db"),
    dataset: Annotated[str | None, typer.Option(help="Only this dataset. Default: all of the ledger.")] = None,
    run: Annotated[str | None, typer.Option(help="List this run only; totals still count every run.")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Chance at which epsilon may fail, in (0, 1). Default: the budget's delta.")
    ] = None,
    format: Annotated[  # noqa: A002
        Format | None, typer.Option(help="Default: by the ending of --output, html without one.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
) -> None:
    """Reports what was spent and what is left. Exit code 1 when the ledger does not verify (the report says so)."""
    from hushgrad.ledger import Ledger
    from hushgrad.report import build, render

    chosen = format or (Format.json if output and output.suffix == ".json" else Format.html)
    document = build(Ledger(str(ledger), create=False), dataset=dataset, run=run, delta=delta)
    page = render(document, format=chosen.value)
    if output is None:
        sys.stdout.buffer.write(page + b"\n")
    else:
        _write(output, page)
    if not document["content"]["ledger"]["chain"]["ok"]:
        raise typer.Exit(1)


def _write(output: Path, page: bytes) -> None:
    from hushgrad.errors import IoError

    try:
        output.write_bytes(page)
    except OSError as error:
        raise IoError(
            f"[report] Expected a file that can be written, received {output}: {error.strerror}. Pass another --output."
        ) from error
