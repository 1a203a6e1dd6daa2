"""From a report document to bytes, in every format. What is shown comes from the document and from nothing else."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import rfc8785

from hushgrad.errors import InvalidArgument
from hushgrad.report import cards, file_seal, flat, page
from hushgrad.report.document import Signer, check
from hushgrad.report.pdf import render_pdf

Json = Mapping[str, Any]
Format = Literal["html", "json", "pdf", "csv", "md", "model-card", "croissant"]
Paper = Literal["a4", "letter"]


def render(
    document: Json,
    format: Format = "html",  # noqa: A002
    *,
    sign: Signer | None = None,
    paper: Paper = "a4",
) -> bytes:
    """Renders what build() made, or what json.loads() read back of it.

    Args:
        document: a report document. Its digest must match its content.
        format: "json" for canonical JSON (RFC 8785); "html" for one page without script, nothing loaded from elsewhere;
            "pdf" (needs the extra `pdf`); "csv" for one line a run; "md" for Markdown; "model-card" for the README.md of a
            model on the Hugging Face hub; "croissant" for a JSON-LD fragment. All text of the ledger is escaped.
        sign: also seals the bytes of an HTML page or a PDF, so that `hushgrad verify` knows them again.
        paper: of a PDF, "a4" or "letter".

    Raises:
        InvalidArgument: not a report document, a newer schema, an altered one, or an unknown format or paper.
        Unsupported: "pdf" without the packages of the extra.
    """
    check(document)
    # As somebody reads it who has nothing but the JSON: 1.0 is 1 there.
    document = json.loads(rfc8785.dumps(dict(document)))
    writers: dict[str, Callable[[], bytes]] = {
        "json": lambda: rfc8785.dumps(dict(document)),
        "html": lambda: file_seal.append(page.render_page(document), "html", sign),
        "pdf": lambda: file_seal.append(render_pdf(document, paper), "pdf", sign),
        "csv": lambda: flat.render_csv(document),
        "md": lambda: cards.render_markdown(document),
        "model-card": lambda: cards.render_model_card(document),
        "croissant": lambda: cards.render_croissant(document),
    }
    if format not in writers:
        known = ", ".join(get_args(Format))
        raise InvalidArgument(f"[report] Expected format {known}, received {format!r}. Pass one of these.")
    return writers[format]()
