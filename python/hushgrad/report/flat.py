"""A report as a table for spreadsheets: one line a run, and one for each dataset as a whole."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from hushgrad.report.text import visible

COLUMNS = (
    "dataset", "run", "purpose", "actor", "status", "started", "finished", "steps", "refused_charges", "delta",
    "epsilon_lower", "epsilon_upper", "private", "sensitivity", "random", "budget_epsilon", "budget_left", "report_sha384",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "＝", "＋", "－", "＠")


def render_csv(document: Mapping[str, Any]) -> bytes:
    """UTF-8 with CRLF (RFC 4180), exact numbers. A text that a spreadsheet could take for a formula begins with '."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in _rows(document):
        writer.writerow([_cell(row.get(column)) for column in COLUMNS])
    return out.getvalue().encode()


def _rows(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for section in document["content"]["datasets"]:
        shared = {"dataset": section["dataset"], "delta": section["delta"], "report_sha384": document["digest"]["value"]}
        for run in section["runs"]:
            yield {
                **run,
                **shared,
                **run["facts"],
                "dataset": run["dataset"],
                "run": run["run_id"],
                "epsilon_lower": run["epsilon"]["lower"],
                "epsilon_upper": run["epsilon"]["upper"],
            }
        budget = section["budget"] or {}
        yield {
            **shared,
            **section["privacy"],
            "run": "all runs composed",
            "steps": section["steps"],
            "epsilon_lower": section["spent"]["lower"],
            "epsilon_upper": section["spent"]["upper"],
            "budget_epsilon": budget.get("epsilon"),
            "budget_left": budget.get("left"),
        }


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return repr(value)
    text = visible(str(value))
    return "'" + text if text.lstrip().startswith(_FORMULA) else text
