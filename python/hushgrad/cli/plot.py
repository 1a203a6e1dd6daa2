"""Epsilon over steps: as text in the terminal, or as a PNG or SVG file where matplotlib is installed."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from hushgrad.errors import Unsupported

Point = tuple[int, float, float]
"""Steps, and the bounds of epsilon after them."""

_BLOCKS = " ▁▂▃▄▅▆▇█│└─"
_PLAIN = "   ...:::|+-"


def step_counts(steps: int, points: int = 20) -> list[int]:
    """About ``points`` even numbers of steps that end at ``steps``."""
    return sorted({max(1, math.ceil(steps * i / points)) for i in range(1, points + 1)}) if steps > 0 else []


def text_plot(points: Sequence[Point], height: int = 8, width: int = 60) -> str:
    """Upper ends as columns of blocks, ``width`` wide with its labels; infinite ones fill theirs."""
    finite = [upper for _, _, upper in points if math.isfinite(upper)]
    top = max(finite, default=0.0) or 1.0
    columns = [min(upper / top, 1.0) * height if math.isfinite(upper) else float(height) for _, _, upper in points]
    each = max(1, (width - 12) // max(1, len(points)))
    symbols = blocks()
    rows = []
    for row in range(height, 0, -1):
        cells = "".join(symbols[round(8 * min(max(column - row + 1, 0.0), 1.0))] * each for column in columns)
        label = f"{top * row / height:10.4g} " if row in (height, 1) else " " * 11
        rows.append(label + symbols[9] + cells.rstrip())
    rows.append(" " * 11 + symbols[10] + symbols[11] * (each * len(points)))
    first, last = (points[0][0], points[-1][0]) if points else (0, 0)
    rows.append(" " * 12 + f"{first} steps" + f"{last} steps".rjust(max(0, each * len(points) - len(f"{first} steps"))))
    return "\n".join(rows)


def blocks() -> str:
    """Nine heights, then axes upright, corner and level: plain characters where standard output cannot show blocks."""
    try:
        _BLOCKS.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return _PLAIN
    return _BLOCKS


def save_plot(path: str, curves: Mapping[str, Sequence[Point]], delta: float) -> None:
    """Write a .png or .svg file. Raises Unsupported without matplotlib."""
    try:
        figure_module: Any = import_module("matplotlib.figure")
    except ImportError:
        raise Unsupported("[plot] Expected matplotlib to be installed. pip install 'hushgrad[plot]'.") from None
    figure = figure_module.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        steps = [count for count, _, _ in points]
        axes.plot(steps, [upper for _, _, upper in points], label=f"{name}, upper")
        if any(lower > 0 for _, lower, _ in points):
            axes.fill_between(steps, [lower for _, lower, _ in points], [upper for _, _, upper in points], alpha=0.3)
    axes.set_xlabel("steps")
    axes.set_ylabel(f"epsilon at delta {delta:g}")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
