"""A report on paper: the page laid out by WeasyPrint, with the JSON it was made from attached to the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from logging import getLogger
from typing import Any

import rfc8785

from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.report.page import TEMPLATES, render_page

SIZES = {"a4": "A4", "letter": "letter"}


def render_pdf(document: Mapping[str, Any], paper: str = "a4") -> bytes:
    """A tagged PDF (PDF/UA-1 as far as WeasyPrint goes), page numbers and the digest on every page, nothing loaded.

    Raises Unsupported without WeasyPrint or the Pango library it needs, InvalidArgument for an unknown paper.
    """
    if paper not in SIZES:
        raise InvalidArgument(f"[report] Expected paper a4 or letter, received {paper!r}. Pass one of these.")
    weasyprint = _weasyprint()
    style = (TEMPLATES / "paper.css").read_text(encoding="utf-8")
    style = style.replace("SIZE", SIZES[paper]).replace("DIGEST", document["digest"]["value"])
    attached = weasyprint.Attachment(
        file_obj=BytesIO(rfc8785.dumps(dict(document))),
        name="report.json",
        description="The report as canonical JSON",
        relationship="Source",
    )
    text = render_page(document, paged=style).decode()
    out = BytesIO()
    with _quiet():
        page = weasyprint.HTML(string=text, url_fetcher=_fetch_nothing, media_type="print")
        page.write_pdf(out, pdf_variant="pdf/ua-1", attachments=[attached], pdf_identifier=document["digest"]["value"][:32].encode())
    return out.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    # What it warns of, properties that only screens know, is no news to whoever asked for a report.
    logger = getLogger("weasyprint")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _weasyprint() -> Any:
    try:
        return import_module("weasyprint")
    except (ImportError, OSError) as error:
        raise Unsupported(
            "[report] Expected WeasyPrint and the Pango library for a PDF, and could not load them"
            f" ({str(error).splitlines()[0][:120]}). Run: pip install 'hushgrad[pdf]' and apt-get install libpango-1.0-0"
            " libpangoft2-1.0-0; or print the HTML page to a file."
        ) from error


def _fetch_nothing(url: str, *arguments: object, **more: object) -> Any:
    raise ValueError(f"a report loads nothing, and was asked for {url[:80]}")
