"""The value nearest to a target from the safe side, with few questions: each one is an accountant's answer and takes time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hushgrad.errors import InvalidArgument

__all__ = ["nearest", "nearest_whole"]


@dataclass(frozen=True)
class _Point:
    value: float
    excess: float
    """log(measure / target): at most 0 is safe."""


def nearest(measure: Callable[[float], float], target: float, *, lowest: float, highest: float, start: float, rising: bool) -> float:
    """The value in [lowest, highest] whose ``measure`` is closest to ``target`` without passing it, to a thousandth of itself.

    ``measure`` falls (``rising``) or grows with the value. Only a value that was asked for and met the target is returned.
    Raises InvalidArgument where the safest end of the interval misses it.
    """
    return _search(measure, target, lowest, highest, start, rising, lambda a, b: (a * b) ** 0.5, lambda a, b: abs(a - b) <= 1e-3 * min(a, b))


def nearest_whole(measure: Callable[[int], float], target: float, *, highest: int, start: int) -> int:
    """The largest whole number in [1, highest] that meets the target, where ``measure`` grows with it. Raises as ``nearest``."""
    value = _search(
        lambda number: measure(int(number)), target, 1.0, float(highest), float(start), False, lambda a, b: math.floor((a + b) / 2), lambda a, b: abs(a - b) <= 1
    )
    return int(value)


def _search(
    measure: Callable[[float], float],
    target: float,
    lowest: float,
    highest: float,
    start: float,
    rising: bool,
    middle: Callable[[float, float], float],
    done: Callable[[float, float], bool],
) -> float:
    def at(value: float) -> _Point:
        found = measure(value)
        return _Point(value, -50.0 if found <= 0 else min(50.0, math.log(found / target)) if found < math.inf else 50.0)

    whole = middle(1.0, 2.0) == 1.0
    safe, over = _bracket(at, min(max(start, lowest), highest), *((highest, lowest) if rising else (lowest, highest)), whole)
    if safe is None:
        raise InvalidArgument("[calibrate] Expected a target that can be met, received one that no value in reach meets. Raise the target.")
    for turn in range(200):
        if over is None or done(safe.value, over.value):
            break
        value = middle(safe.value, over.value) if turn % 3 == 2 else _crossing(safe, over, whole)
        point = at(value)
        safe, over = (point, over) if point.excess <= 0 else (safe, point)
    return safe.value


def _bracket(at: Callable[[float], _Point], start: float, safest: float, boldest: float, whole: bool) -> tuple[_Point | None, _Point | None]:
    """A safe point and one over the target, walking from ``start`` in factors of four; None where the interval ends before."""
    point = at(start)
    goal = boldest if point.excess <= 0 else safest
    while True:
        if point.value == goal:
            return (point, None) if point.excess <= 0 else (None, point)
        value = min(point.value * 4, goal) if goal > point.value else max(point.value / 4, goal)
        after = at(float(math.floor(value)) if whole else value)
        if (after.excess <= 0) != (point.excess <= 0):
            return (point, after) if point.excess <= 0 else (after, point)
        point = after


def _crossing(safe: _Point, over: _Point, whole: bool) -> float:
    """Where a power law through both points meets the target, a little to the safe side, and inside."""
    share = min(max(safe.excess / (safe.excess - over.excess), 0.02), 0.98)
    value = safe.value * math.pow(over.value / safe.value, share * 0.999)
    if whole:
        low, high = sorted((safe.value, over.value))
        return min(max(float(math.floor(value)), low + 1), high - 1)
    return value
