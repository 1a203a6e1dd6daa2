"""Geometry of the chart of epsilon over steps. Words and colours are the template's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hushgrad.report.numbers import Number, to_float

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 42, 20, 20, 46

Json = dict[str, Any]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in units of the drawing, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the drawing needs. `line` and `area` are SVG path data; the rest are positions in the drawing.

    `unlimited_from` is where epsilon becomes infinite and the line ends, None if it never does. `budget` is the height
    of the budget line, None without a budget at the same delta. `runs` are where runs begin, the first one left out.
    """

    line: str
    area: str
    end: tuple[float, float] | None
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    budget: float | None
    unlimited_from: float | None
    runs: list[float]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(section: Json) -> Chart | None:
    """The chart of one dataset's section of a report; None when there is nothing to draw (no steps)."""
    steps: int = section["steps"]
    if steps == 0:
        return None
    finite = [(p["step"], to_float(p["epsilon"])) for p in section["curve"] if to_float(p["epsilon"]) < math.inf]
    infinite = [p["step"] for p in section["curve"] if to_float(p["epsilon"]) == math.inf]
    budget = _comparable_budget(section)
    y_ticks = nice_ticks(max([y for _, y in finite] + [budget or 0.0]))
    x_ticks = nice_ticks(steps, whole=True)
    x_scale = (WIDTH - LEFT - RIGHT) / steps
    y_scale = (HEIGHT - TOP - BOTTOM) / y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + x * x_scale, 1), round(HEIGHT - BOTTOM - y * y_scale, 1)

    points = [place(x, y) for x, y in finite]
    return Chart(
        line=_path(points),
        area=_path([(points[0][0], HEIGHT - BOTTOM), *points, (points[-1][0], HEIGHT - BOTTOM)]) + "Z",
        end=points[-1] if not infinite else None,
        x_ticks=[Tick(place(value, 0)[0], f"{value:,.0f}") for value in x_ticks if value <= steps],
        y_ticks=[Tick(place(0, value)[1], f"{value:g}") for value in y_ticks],
        budget=None if budget is None else place(0, budget)[1],
        unlimited_from=points[-1][0] if infinite else None,
        runs=[place(start["step"], 0)[0] for start in section["run_starts"] if start["step"] > 0],
    )


def nice_ticks(largest: float, *, whole: bool = False) -> list[float]:
    """0 and up in steps of 1, 2 or 5 times a power of ten, three to six of them, the last at or above `largest`."""
    largest = largest if largest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= largest / 4 * (1 - 1e-12))
    step = max(1.0, step) if whole else step
    return [i * step for i in range(math.ceil(largest / step * (1 - 1e-12)) + 1)]


def _comparable_budget(section: Json) -> float | None:
    budget = section["budget"]
    value: Number | None = budget["epsilon"] if budget and budget["delta"] == section["delta"] else None
    return None if value is None else to_float(value)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
