"""Epsilon over steps: the options of the plot, its points, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from hushgrad.cli.output import console, print_line, print_table, rounded_down, rounded_up
from hushgrad.cli.setting import Setting
from hushgrad.errors import InvalidArgument

__all__ = ["Curve", "Output", "Plot", "check_output", "curve_of", "show_curve"]

Curve = list[tuple[int, float, float]]
Plot = Annotated[bool, typer.Option("--plot", help="Show epsilon over steps as a table and a plot.")]
Output = Annotated[str, typer.Option(metavar="FILE", help="Write the plot to this .png or .svg file (needs matplotlib).")]


def curve_of(setting: Setting, delta: float, accountant: str, adjacency: str) -> Curve:
    """(steps, lower, upper) at even numbers of steps up to those of the setting."""
    from hushgrad import accounting
    from hushgrad.cli.plot import step_counts

    counts = step_counts(setting.steps)
    return [(count, *accounting.epsilon(setting.after(count).event(), delta, accountant, adjacency=adjacency)) for count in counts]


def check_output(path: str) -> None:
    """Raises InvalidArgument before anything is computed for a file that could not be written."""
    if path and not path.endswith((".png", ".svg")):
        raise InvalidArgument(f"[plot] Expected a file name that ends in .png or .svg, received {path}.")


def show_curve(curves: Mapping[str, Curve], delta: float, *, plot: bool, output: str) -> None:
    """Writes the file and prints the table and the plot that were asked for."""
    if output:
        from hushgrad.cli.plot import save_plot

        save_plot(output, curves, delta)
    if plot and curves:
        from hushgrad.cli.plot import text_plot

        points = next(iter(curves.values()))
        rows = [points[len(points) * i // 6 - 1] for i in range(1, 7)] if len(points) > 6 else points
        print_table(
            ("steps", "epsilon at most", "at least"), [(str(n), rounded_up(b), rounded_down(a) if a > 0 else "-") for n, a, b in rows]
        )
        print_line(text_plot(points, width=min(console().width, 100)))
