"""Numbers as people read them. Rounding goes against the spender: spent rounds up, left rounds down."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

INFINITY = "infinity"

Number = int | float | str
"""A finite number, or the text "infinity": JSON has no infinity."""


def to_json(value: float) -> Number:
    """A finite number as it is, positive infinity as "infinity". NaN has no meaning here and counts as infinity."""
    return value if math.isfinite(value) else INFINITY


def to_float(value: Number) -> float:
    """Reads what to_json() wrote."""
    return math.inf if value == INFINITY else float(value)


def round_up(value: Number) -> str:
    """At least `value`: two decimals, or two significant digits below 0.1. "infinity" stays a word."""
    return _round(value, ROUND_CEILING)


def round_down(value: Number) -> str:
    """At most `value`; otherwise like round_up()."""
    return _round(value, ROUND_FLOOR)


def one_in(probability: float) -> str:
    """0.00001 as "1 in 100,000", never rarer than `probability`, which must be in (0, 1)."""
    return f"1 in {math.floor(1 / Decimal(probability)):,}"


def percent_up(probability: Number) -> str:
    """At least `probability`, in per cent: "2.6 %", "0.19 %", never above "100 %"."""
    exact = Decimal(float(probability)) * 100
    if exact <= 0:
        return "0 %"
    step = Decimal("0.1") if exact >= 1 else Decimal(1).scaleb(exact.adjusted() - 1)
    rounded = min(Decimal(100), exact.quantize(step, rounding=ROUND_CEILING)).normalize()
    return f"{rounded:f} %"


def scientific(value: Number) -> str:
    """Up to three significant digits, for probabilities: 6.19e-06."""
    return INFINITY if value == INFINITY else f"{float(value):.3g}"


def _round(value: Number, rounding: str) -> str:
    if value == INFINITY:
        return INFINITY
    exact = Decimal(float(value))
    if exact == 0:
        return "0"
    step = Decimal("0.01") if abs(exact) >= Decimal("0.1") else Decimal(1).scaleb(exact.adjusted() - 1)
    return f"{exact.quantize(step, rounding=rounding):,f}"
