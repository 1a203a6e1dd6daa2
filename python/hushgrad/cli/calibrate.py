"""`hushgrad calibrate`: how much noise a target needs."""

from __future__ import annotations

from typing import Annotated

import typer

from hushgrad.cli.output import as_json, print_json, print_line, rounded_up


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate")(calibrate)


def calibrate(
    target_epsilon: Annotated[float, typer.Option(help="Epsilon that the whole training may cost.")],
    target_delta: Annotated[float, typer.Option(help="Chance at which epsilon may fail, in (0, 1).")],
    sampling_rate: Annotated[float, typer.Option(help="Chance of each sample to be in a batch, in (0, 1].")],
    steps: Annotated[int, typer.Option(help="Number of optimizer steps.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON with exact numbers.")] = False,
) -> None:
    """Show the smallest safe noise multiplier of DP-SGD with Poisson batches, add-or-remove-one adjacency."""
    from hushgrad import accounting

    noise_multiplier = accounting.calibrate_noise(
        target_epsilon=target_epsilon, target_delta=target_delta, sampling_rate=sampling_rate, steps=steps
    )
    step = accounting.PoissonSampledDpEvent(sampling_rate, accounting.GaussianDpEvent(noise_multiplier))
    achieved = accounting.epsilon(accounting.SelfComposedDpEvent(step, steps), target_delta)[1]
    if json:
        print_json(
            {
                "adjacency": "add_or_remove_one",
                "epsilon_upper": as_json(achieved),
                "noise_multiplier": noise_multiplier,
                "sampling_rate": sampling_rate,
                "steps": steps,
                "target_delta": target_delta,
                "target_epsilon": target_epsilon,
            }
        )
    else:
        print_line(f"noise_multiplier {rounded_up(noise_multiplier)}")
        print_line(f"epsilon <= {rounded_up(achieved)} at delta {target_delta:g}, add_or_remove_one")
