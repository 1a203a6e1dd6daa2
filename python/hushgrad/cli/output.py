"""How commands print: one JSON document, or lines and tables; errors and warnings as one line on standard error.

Colour and progress bars are for terminals: none of them reach a pipe or a file, and ``NO_COLOR`` switches colour off.
Rich is imported where it is needed, so that an answer in a pipe costs no start-up time.
"""

from __future__ import annotations

import json as json_text
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Json",
    "as_json",
    "console",
    "print_error",
    "print_json",
    "print_line",
    "print_result",
    "print_table",
    "print_text",
    "print_warning",
    "progress",
    "rounded_down",
    "rounded_up",
    "use_json",
    "working",
]

#: The option that every command has. One document on standard output; errors and warnings are JSON lines on standard error.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document with exact numbers.")]

_Item = TypeVar("_Item")
_as_json = False
_WIDER_THAN_ANY_TABLE = 100_000


def use_json(wanted: bool) -> None:
    """Whether errors and warnings are printed as JSON, too. The frame sets it once a call."""
    global _as_json
    _as_json = wanted


def rounded_up(value: float) -> str:
    """Four decimals, never below the value: what is shown must not look safer than what is known."""
    return "infinity" if math.isinf(value) else f"{math.ceil(value * 10**4) / 10**4:.4f}"


def rounded_down(value: float) -> str:
    """Four decimals, never above the value."""
    return "infinity" if math.isinf(value) else f"{math.floor(value * 10**4) / 10**4:.4f}"


def as_json(value: float) -> float | str:
    """JSON has no infinity; the word stands for it."""
    return "infinity" if math.isinf(value) else value


def print_json(document: Any) -> None:
    """One document, keys sorted, exact numbers; what the stream cannot encode is escaped."""
    text = json_text.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json_text.dumps(document, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    print(text)


def print_result(json: bool, document: Any, text: str, style: str = "") -> None:
    """What a command did: ``document`` under ``--json``, else ``text`` as one line."""
    if json:
        print_json(document)
    else:
        print_line(text, style)


def print_line(text: str, style: str = "") -> None:
    """One line, whatever its width; nothing in it is read as markup, and control characters do not reach the terminal."""
    _print(text, style, sys.stdout)


def print_text(text: str, style: str = "", indent: int = 0) -> None:
    """A sentence or more: in a terminal broken between words, elsewhere one line."""
    _print(_wrapped(text, sys.stdout, indent), style, sys.stdout)


def _wrapped(text: str, stream: TextIO, indent: int = 0) -> str:
    if not stream.isatty():
        return " " * indent + text
    hanging = " " * (indent + (2 if text.startswith("- ") else 0))
    width = min(console(stream).width, 110)
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, as wide as it needs in a pipe; in a terminal too narrow for it, a block of lines for each row.

    Nothing in its cells is read as markup.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[_printable(cell) for cell in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    target = console()
    if not target.is_terminal:
        target.width = _WIDER_THAN_ANY_TABLE
        with target.capture() as captured:
            target.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))
    elif _narrowest([list(columns), *cells]) > target.width:
        _print_blocks(columns, cells)
    else:
        target.print(table)


def _narrowest(rows: Sequence[Sequence[str]]) -> int:
    """The width below which a word of some column would be broken; a long path or digest may be."""
    words = (max((min(len(word), 24) for cell in column for word in cell.split()), default=0) for column in zip(*rows, strict=False))
    widths = list(words)
    return sum(widths) + 2 * (len(widths) - 1)


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        for column, cell in zip(columns, row, strict=False):
            print_line(f"{column}: {cell}" if column else cell)
        print_line("")


def print_error(text: str, *, kind: str = "", code: int | None = None) -> None:
    """One red line on standard error; under ``--json`` a JSON object with ``kind``, ``message`` and ``exit_code``."""
    _note("error", text, "red", {"kind": kind, "exit_code": code})


def print_warning(text: str) -> None:
    """One yellow line on standard error; under ``--json`` a JSON object."""
    _note("warning", text, "yellow", {})


def _note(what: str, text: str, style: str, more: dict[str, Any]) -> None:
    line = " ".join(text.split())
    if _as_json:
        facts = {key: value for key, value in more.items() if value not in ("", None)}
        print(json_text.dumps({what: {"message": line, **facts}}, sort_keys=True, ensure_ascii=True), file=sys.stderr)
    else:
        _print(_wrapped(line, sys.stderr), style, sys.stderr)


def _print(text: str, style: str, stream: TextIO) -> None:
    text = _printable(text)
    if not style or not stream.isatty():
        print(text, file=stream)
        return
    from rich.text import Text

    console(stream).print(Text(text, style=style), soft_wrap=True)


def _printable(text: str) -> str:
    """Control characters of names and messages as escapes: what a ledger holds must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)


def console(stream: TextIO | None = None) -> Console:
    """A Rich console on ``stream``, by default standard output as it is now."""
    from rich.console import Console

    return Console(file=stream or sys.stdout, highlight=False, markup=False, emoji=False)


def progress(items: Iterable[_Item], title: str, total: int | None = None) -> Iterator[_Item]:
    """``items``, with a progress bar on standard error if that is a terminal; it leaves nothing behind."""
    if _as_json or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield from items
        return
    from rich.progress import track

    yield from track(items, description=title, total=total, console=console(sys.stderr), transient=True)


@contextmanager
def working(title: str) -> Iterator[None]:
    """Says on a terminal that something takes a moment; nothing elsewhere, and nothing is left of it."""
    if _as_json or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    with console(sys.stderr).status(title):
        yield
