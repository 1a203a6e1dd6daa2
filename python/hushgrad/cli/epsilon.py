"""`hushgrad epsilon`: what a training plan costs."""

from __future__ import annotations

from typing import Annotated

import typer

from hushgrad.cli.output import as_json, print_json, print_line, rounded_down, rounded_up


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("epsilon")(epsilon)


def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise standard deviation over max_grad_norm.")],
    sampling_rate: Annotated[float, typer.Option(help="Chance of each sample to be in a batch, in [0, 1].")],
    steps: Annotated[int, typer.Option(help="Number of optimizer steps.")],
    delta: Annotated[float, typer.Option(help="Chance at which epsilon may fail, in (0, 1).")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON with exact numbers.")] = False,
) -> None:
    """Show epsilon of DP-SGD with Poisson batches, add-or-remove-one adjacency."""
    from hushgrad import accounting

    step = accounting.PoissonSampledDpEvent(sampling_rate, accounting.GaussianDpEvent(noise_multiplier))
    lower, upper = accounting.epsilon(accounting.SelfComposedDpEvent(step, steps), delta)
    if json:
        print_json({"delta": delta, "epsilon_lower": as_json(lower), "epsilon_upper": as_json(upper)})
    else:
        print_line(f"epsilon <= {rounded_up(upper)} (and >= {rounded_down(lower)}) at delta {delta:g}")
