"""`hushgrad verify`: checks a report from its file alone."""

from pathlib import Path
from typing import Annotated

import typer

from hushgrad.cli.output import Json, print_json, print_line


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("verify")(verify)


def verify(
    report: Annotated[Path, typer.Argument(help="The report: JSON, HTML or PDF.")],
    key: Annotated[
        str | None, typer.Option(help="The signer you trust: a public key file (PEM) or a key id. Without it, nobody is vouched for.")
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="Compare with this ledger too: a file or postgresql://...")] = None,
    json: Json = False,
) -> None:
    """Check a report: digest, signature, chain head, and that its pages show what it holds.

    Exit code 0 when nothing is wrong, 1 when something is. Only with --key does 0 say who made the report.
    """
    from hushgrad.ledger import Ledger
    from hushgrad.report.verify import verify_report

    opened = None if ledger is None else Ledger(ledger, create=False)
    found = verify_report(report, key=key, ledger=opened)
    if json:
        checks = [{"name": c.name, "status": c.status, "text": c.text} for c in found.checks]
        print_json({"ok": found.ok, "kind": found.kind, "sentence": found.sentence, "checks": checks})
    else:
        marks = {"ok": "ok     ", "failed": "FAILED ", "unknown": "open   "}
        for check in found.checks:
            print_line(f"{marks[check.status]} {check.name}: {check.text}", style="red" if check.status == "failed" else "")
        print_line(found.sentence, style="bold red" if not found.ok else "bold")
    if not found.ok:
        raise typer.Exit(1)
