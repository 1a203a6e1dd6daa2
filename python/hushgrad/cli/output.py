"""How commands print: one JSON document, or tables; errors as one line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["as_json", "print_error", "print_json", "print_line", "print_table", "rounded_down", "rounded_up"]


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
    """One document, keys sorted, exact numbers."""
    print(json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False))


def print_line(text: str, style: str = "") -> None:
    """One line, whatever its width; nothing in it is read as markup."""
    Console(soft_wrap=True, highlight=False).print(Text(text, style=style))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; nothing in its cells is read as markup."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def print_error(text: str) -> None:
    """One red line on standard error."""
    line = " ".join(text.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(line, style="red"))
