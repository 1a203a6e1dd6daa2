"""From a report document to bytes: canonical JSON, or one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import rfc8785
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hushgrad.errors import InvalidArgument
from hushgrad.report import chart, numbers
from hushgrad.report.build import SCHEMA, SCHEMA_VERSION, digest


def render(document: Mapping[str, Any], format: Literal["html", "json"] = "html") -> bytes:  # noqa: A002
    """Renders what build() made, or what json.loads() read back of it.

    Args:
        document: a report document. Its digest must match its content.
        format: "json" for canonical JSON (RFC 8785), "html" for a page made from that document and nothing else: no
            script, nothing loaded from elsewhere, all text escaped.

    Raises:
        InvalidArgument: not a report document, a newer schema, an altered one, or an unknown format.
    """
    _check(document)
    if format == "json":
        return rfc8785.dumps(dict(document))
    if format == "html":
        return _environment().get_template("page.html").render(document=document).lstrip().encode()
    raise InvalidArgument(f"[report] Expected format html or json, received {format!r}. Pass one of these.")


def _check(document: Mapping[str, Any]) -> None:
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


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        up=numbers.round_up, down=numbers.round_down, scientific=numbers.scientific, one_in=numbers.one_in, when=_when
    )
    environment.globals["draw"] = chart.draw
    return environment


def _when(time: str) -> str:
    """2026-01-31T12:00:59Z as 2026-01-31 12:00 UTC."""
    return f"{time[:10]} {time[11:16]} UTC"
