"""Evidence mapped to controls, to the commitments of a business associate agreement, and to risks: from data files.

A control is one row of `controls/*.json`; it names the questions of evidence.py that bear on it.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from hushgrad.report.evidence import Evidence, ask, combined

Json = dict[str, Any]

FOLDER = Path(__file__).with_name("controls")


@cache
def catalogue(name: str) -> Json:
    """One data file, by its name without ending."""
    data: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return data


def frameworks() -> list[Json]:
    """The data files of rules, in the order of their names' numbers."""
    return [catalogue(path.stem) for path in sorted(FOLDER.glob("[0-9]*.json"))]


def evaluate(content: Json) -> Json:
    """What of the content is evidence for what: `controls`, `agreement` and `risk_register` of a report."""
    return {
        "controls": [_framework(data, content) for data in frameworks()],
        "agreement": _framework(catalogue("business_associate_agreement"), content),
        "risk_register": _framework(catalogue("risk_register"), content),
    }


def _framework(data: Json, content: Json) -> Json:
    return {**{key: data[key] for key in ("framework", "version", "note")}, "rows": [_row(row, content) for row in data["rows"]]}


def _row(row: Json, content: Json) -> Json:
    found = {name: ask(name, content) for name in row["evidence"]}
    kept = {key: value for key, value in row.items() if key != "evidence"}
    return {**kept, "verdict": combined([e.verdict for e in found.values()]), "evidence": [_item(*pair) for pair in found.items()]}


def _item(name: str, evidence: Evidence) -> Json:
    return {"query": name, "verdict": evidence.verdict, "text": evidence.text}
