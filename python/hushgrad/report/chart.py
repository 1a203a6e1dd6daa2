"""Geometry of the charts. Words and colours are the template's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hushgrad.report.numbers import Number, to_float

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 20, 46

Json = dict[str, Any]
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in units of the drawing, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the drawing needs. `line`, `area` and `reference` are SVG path data; the rest are positions.

    `unlimited_from` is where epsilon becomes infinite and the line ends, None if it never does. `budget` is the height
    of the budget line, None without a budget at the same delta. `runs` are where runs begin, the first one left out.
    """

    line: str
    area: str
    end: Point | None
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_name: str
    budget: float | None = None
    unlimited_from: float | None = None
    runs: list[float] = field(default_factory=list)
    reference: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """One of several lengths to compare; `width` in units of a drawing that is WIDTH wide, None where it is infinite."""

    label: str
    width: float | None
    value: Number


def draw(section: Json) -> Chart | None:
    """Epsilon over the steps of a dataset; None when there is nothing to draw (no steps)."""
    steps: int = section["steps"]
    if steps == 0:
        return None
    points = [(p["step"], to_float(p["epsilon"])) for p in section["curve"]]
    starts = [start["step"] for start in section["run_starts"] if start["step"] > 0]
    return _growing(points, steps, "training steps", _comparable_budget(section), starts)


def draw_runs(section: Json) -> Chart | None:
    """Epsilon over the runs of a dataset; None for fewer than two."""
    if section["runs_total"] < 2 or section["steps"] == 0:
        return None
    points = [(p["runs"], to_float(p["epsilon"])) for p in section["runs_curve"]]
    return _growing(points, section["runs_total"], "training runs, in the order they began", _comparable_budget(section), [])


def draw_trade_off(section: Json) -> Chart | None:
    """The most that a membership test can find, over what it may wrongly accuse; None without steps."""
    if section["steps"] == 0:
        return None
    points = [_place(p["false_positive_rate"], p["true_positive_rate"], 1, 1) for p in section["risk"]["trade_off"]]
    ticks = [i / 4 for i in range(5)]
    return Chart(
        line=_path(points),
        area=_path([_place(0, 0, 1, 1), *points]) + "Z",
        end=None,
        x_ticks=[Tick(_place(value, 0, 1, 1)[0], f"{value:.0%}") for value in ticks],
        y_ticks=[Tick(_place(0, value, 1, 1)[1], f"{value:.0%}") for value in ticks],
        x_name="of the records that were not used: wrongly accused",
        reference=_path([_place(0, 0, 1, 1), _place(1, 1, 1, 1)]),
    )


def draw_bars(rows: Sequence[Json]) -> list[Bar]:
    """The epsilons of several assumptions as lengths; the longest finite one fills the width."""
    values = [to_float(row["epsilon"]) for row in rows]
    longest = max((value for value in values if math.isfinite(value)), default=0.0) or 1.0
    widths = [round(max(2.0, WIDTH * value / longest), 1) if math.isfinite(value) else None for value in values]
    return [Bar(row["text"], width, row["epsilon"]) for row, width in zip(rows, widths, strict=True)]


def share(part: Number, whole: Number) -> float:
    """How much of a bar of length 100 is used; never less than it is, at most 100."""
    used, total = to_float(part), to_float(whole)
    if total <= 0 or used >= total:
        return 100.0
    return math.ceil(1000 * used / total) / 10


def nice_ticks(largest: float, *, whole: bool = False) -> list[float]:
    """0 and up in steps of 1, 2 or 5 times a power of ten, three to six of them, the last at or above `largest`."""
    largest = largest if largest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= largest / 4 * (1 - 1e-12))
    step = max(1.0, step) if whole else step
    return [i * step for i in range(math.ceil(largest / step * (1 - 1e-12)) + 1)]


def _growing(points: Sequence[Point], count: int, x_name: str, budget: float | None, marks: Sequence[int]) -> Chart:
    finite = [(x, y) for x, y in points if y < math.inf]
    ends_early = len(finite) < len(points)
    y_ticks = nice_ticks(max([y for _, y in finite] + [budget or 0.0]))
    placed = [_place(x, y, count, y_ticks[-1]) for x, y in finite]
    return Chart(
        line=_path(placed),
        area=_path([(placed[0][0], HEIGHT - BOTTOM), *placed, (placed[-1][0], HEIGHT - BOTTOM)]) + "Z",
        end=placed[-1] if not ends_early else None,
        x_ticks=[Tick(_place(v, 0, count, 1)[0], f"{v:,.0f}") for v in nice_ticks(count, whole=True) if v <= count],
        y_ticks=[Tick(_place(0, v, 1, y_ticks[-1])[1], f"{v:g}") for v in y_ticks],
        x_name=x_name,
        budget=None if budget is None else _place(0, budget, 1, y_ticks[-1])[1],
        unlimited_from=placed[-1][0] if ends_early else None,
        runs=[_place(mark, 0, count, 1)[0] for mark in marks],
    )


def _place(x: float, y: float, x_end: float, y_end: float) -> Point:
    across, up = (WIDTH - LEFT - RIGHT) / x_end, (HEIGHT - TOP - BOTTOM) / y_end
    return round(LEFT + x * across, 1), round(HEIGHT - BOTTOM - y * up, 1)


def _comparable_budget(section: Json) -> float | None:
    budget = section["budget"]
    value: Number | None = budget["epsilon"] if budget and budget["delta"] == section["delta"] else None
    return None if value is None else to_float(value)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
