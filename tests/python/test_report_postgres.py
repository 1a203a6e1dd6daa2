"""The same report from PostgreSQL as from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import postgres_server
from report_ledger import full_ledger

from hushgrad.errors import Unsupported
from hushgrad.ledger import Ledger
from hushgrad.report import build, render, verify_report


def test_report_from_a_database(tmp_path: Path) -> None:
    with postgres_server() as address:
        file = full_ledger(str(tmp_path / "budget.db"))
        of_file = build(file)["content"]
        try:
            moved = file.move_to(address)
        except Unsupported as error:
            pytest.skip(f"hushgrad was built without PostgreSQL: {error}")
        document = build(moved)
        content = document["content"]
        assert content["ledger"]["engine"] == "postgresql" and content["ledger"]["name"] == "PostgreSQL"
        assert content["ledger"]["chain"]["ok"] and content["ledger"]["id"] == of_file["ledger"]["id"]
        assert content["datasets"] == of_file["datasets"]
        page = tmp_path / "report.html"
        page.write_bytes(render(document))
        assert verify_report(page, ledger=moved)
        assert address.split("@")[1].split("/")[0].encode() not in page.read_bytes()  # where the server is, nobody is told
        del moved, file
        assert Ledger(address, create=False).verify()
