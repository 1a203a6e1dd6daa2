"""The page of a report: one self-contained HTML document, which also carries the JSON it was made from."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hushgrad.report import chart, numbers
from hushgrad.report.text import visible

TEMPLATES = Path(__file__).with_name("templates")


def render_page(document: Mapping[str, Any], *, paged: str = "") -> bytes:
    """The page of a checked document. `paged`: the style of paper in place of the screen's; the JSON is then left out."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    style += paged or (TEMPLATES / "screen.css").read_text(encoding="utf-8")
    text = environment().get_template("page.html").render(
        document=document,
        paged=bool(paged),
        style=Markup(style),
        style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        canonical=_as_text(rfc8785.dumps(dict(document)).decode()),
    )
    return (text.strip() + "\n").encode()


def _as_text(text: str) -> Markup:
    # Inside an element, and outside attributes, these three are all that HTML can mistake.
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def environment() -> Environment:
    """Escapes every text, and makes what is not seen in it visible first."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters.update(
        up=numbers.round_up, down=numbers.round_down, scientific=numbers.scientific, one_in=numbers.one_in,
        percent=numbers.percent_up, per_cent=lambda value: f"{100 * value:.6g} %", when=_when,
    )  # fmt: skip
    made.globals.update(
        draw=chart.draw, draw_runs=chart.draw_runs, draw_trade_off=chart.draw_trade_off, draw_bars=chart.draw_bars,
        share=chart.share,
    )  # fmt: skip
    return made


def _shown(value: object) -> object:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value)


def _when(time: str) -> str:
    """2026-01-31T12:00:59Z as 2026-01-31 12:00 UTC."""
    return f"{time[:10]} {time[11:16]} UTC"
