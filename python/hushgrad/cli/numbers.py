"""Numbers as people type them: 1e4 and 10_000 are counts, 256/60000 is a rate. What is out of range says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import typer

__all__ = ["bands_value", "count", "delta_value", "not_negative", "positive", "probability", "rate"]

_LARGEST = 2**53  # a double holds every count up to here
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d{1,4})?", re.IGNORECASE)


def _value(text: str, expected: str) -> Fraction:
    """Exactly what was typed: a decimal number, or one divided by another."""
    above, slash, below = str(text).strip().partition("/")  # Typer hands over defaults as they are
    parts = [above, below] if slash else [above]
    if all(_NUMBER.fullmatch(part.strip()) for part in parts):
        values = [Fraction(part.strip().replace("_", "")) for part in parts]
        if len(values) == 1 or values[1] != 0:
            return values[0] / values[-1] if slash else values[0]
    raise typer.BadParameter(f"Expected {expected}, received {text!r}.")


def count(text: str) -> int:
    """A whole number from 1 to 2^53."""
    value = _value(text, "a whole number from 1 on, as 10000, 10_000 or 1e4")
    if value.denominator != 1 or not 1 <= value <= _LARGEST:
        raise typer.BadParameter(f"Expected a whole number from 1 to 2^53, received {text}.")
    return int(value)


def bands_value(text: str) -> int:
    """A whole number from 1 to 65536."""
    value = count(text)
    if value > 2**16:
        raise typer.BadParameter(f"Expected at most 65536 bands, received {text}.")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    return _finite(text, "a finite number above 0", lambda value: value > 0)


def not_negative(text: str) -> float:
    """A finite number from 0 on."""
    return _finite(text, "a finite number from 0 on", lambda value: value >= 0)


def rate(text: str) -> float:
    """A number in [0, 1]."""
    return _finite(text, "a number from 0 to 1, as 0.01 or 256/60000", lambda value: 0 <= value <= 1)


def probability(text: str) -> float:
    """A number in (0, 1)."""
    return _finite(text, "a number between 0 and 1", lambda value: 0 < value < 1)


def delta_value(text: str) -> float:
    """A delta: a number in (0, 1)."""
    return _finite(text, "a delta between 0 and 1, well below 1 / (number of records), as 1e-6 or 1/600000", lambda value: 0 < value < 1)


def _finite(text: str, expected: str, fits: Callable[[float], bool]) -> float:
    value = _value(text, expected)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not fits(number):
        raise typer.BadParameter(f"Expected {expected}, received {text}.")
    return number
