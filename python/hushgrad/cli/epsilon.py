"""`hushgrad epsilon`: what a training plan costs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hushgrad.cli.output import as_json, print_json, print_line, print_table, rounded_down, rounded_up


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("epsilon")(epsilon)


def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise standard deviation over max_grad_norm.")],
    sampling_rate: Annotated[float, typer.Option(help="Chance of each sample to be in a batch, in [0, 1].")],
    steps: Annotated[int, typer.Option(help="Number of optimizer steps.")],
    delta: Annotated[float, typer.Option(help="Chance at which epsilon may fail, in (0, 1).")],
    adjacency: Annotated[
        str, typer.Option(help="Neighbours: add_or_remove_one, replace_one or zero_out.")
    ] = "add_or_remove_one",
    compare: Annotated[bool, typer.Option("--compare", help="Show every accountant.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw epsilon over steps in the terminal.")] = False,
    output: Annotated[str, typer.Option(help="Write the plot to this .png or .svg file (needs matplotlib).")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON with exact numbers.")] = False,
) -> None:
    """Show epsilon of DP-SGD with Poisson batches: as a number, a table over steps, or a plot."""
    from hushgrad import accounting
    from hushgrad.cli.plot import save_plot, step_counts, text_plot

    step = accounting.PoissonSampledDpEvent(sampling_rate, accounting.GaussianDpEvent(noise_multiplier))

    def bounds(count: int, accountant: str) -> tuple[float, float]:
        return accounting.epsilon(accounting.SelfComposedDpEvent(step, count), delta, accountant, adjacency=adjacency)

    names = ("pld", "rdp") if compare else ("pld",)
    answers = {name: bounds(steps, name) for name in names}
    lower, upper = answers["pld"]
    curves = {}
    if plot or output:
        curves = {name: [(count, *bounds(count, name)) for count in step_counts(steps)] for name in names}
    if output:
        save_plot(output, curves, delta)
    if json:
        document: dict[str, Any] = {
            "adjacency": adjacency,
            "delta": delta,
            "epsilon_lower": as_json(lower),
            "epsilon_upper": as_json(upper),
        }
        if compare:
            document["accountants"] = {name: [as_json(a), as_json(b)] for name, (a, b) in answers.items()}
        if curves:
            document["over_steps"] = {
                name: [[count, as_json(a), as_json(b)] for count, a, b in points] for name, points in curves.items()
            }
        print_json(document)
        return
    print_line(f"epsilon <= {rounded_up(upper)} (and >= {rounded_down(lower)}) at delta {delta:g}, {adjacency}")
    if compare:
        print_table(
            ("accountant", "epsilon at most", "at least"),
            [(name, rounded_up(b), rounded_down(a)) for name, (a, b) in answers.items()],
        )
    if plot:
        points = curves["pld"]
        print_table(
            ("steps", "epsilon at most", "at least"),
            [(str(count), rounded_up(b), rounded_down(a)) for count, a, b in points[5::6]],
        )
        print_line(text_plot(points))
