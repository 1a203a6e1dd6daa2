"""`hushgrad plan`: from the size of the data and a target to everything a training needs to know, and the code to paste."""

from __future__ import annotations

import json as json_text
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from hushgrad.cli.numbers import count, delta_value, positive
from hushgrad.cli.output import Json, console, print_json, print_line, print_table, print_text, print_warning, rounded_up, working
from hushgrad.cli.setting import warn_of_delta, warn_of_epsilon
from hushgrad.errors import InvalidArgument

_FACTORS = (0.125, 0.25, 0.5, 1, 2, 4, 8)


@dataclass(frozen=True)
class Row:
    """What a batch size needs and gives at the target."""

    batch_size: int
    sampling_rate: float
    steps: int
    noise_multiplier: float
    epsilon_upper: float
    noise_in_mean: float
    """Deviation of the noise in each coordinate of the mean gradient, in units of max_grad_norm: noise_multiplier / batch_size."""
    noise_in_all: float
    """The same for the sum of all steps' mean gradients against their number: noise_in_mean / sqrt(steps)."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


def plan(
    dataset_size: Annotated[int, typer.Option(parser=count, metavar="COUNT", help="Number of records; treated as public.")],
    target_epsilon: Annotated[float, typer.Option(parser=positive, metavar="NUMBER", help="Epsilon that the whole training may cost.")],
    epochs: Annotated[int, typer.Option(parser=count, metavar="COUNT", help="How often the data is gone through, on average.")] = 10,
    batch_size: Annotated[
        int | None, typer.Option(parser=count, metavar="COUNT", help="Expected batch size. Default: about the square root of ten times the data.")
    ] = None,
    target_delta: Annotated[
        float | None, typer.Option(parser=delta_value, metavar="DELTA", help="Default: a tenth of 1 / (number of records), rounded down.")
    ] = None,
    max_grad_norm: Annotated[float, typer.Option(parser=positive, metavar="NUMBER", help="Clipping norm, for the code that is printed.")] = 1.0,
    dataset: Annotated[str, typer.Option(help="Name of the data set, for the code that is printed.")] = "DATASET",
    json: Json = False,
) -> None:
    """Plan a training: noise, steps and sampling rate for a target, what other batch sizes would do, and the code.

    `hushgrad plan --dataset-size 60000 --epochs 15 --batch-size 1024 --target-epsilon 3`. Batches are drawn by Poisson sampling,
    neighbours are add_or_remove_one.
    """
    batch = batch_size if batch_size is not None else _usual_batch(dataset_size)
    if batch > dataset_size:
        raise InvalidArgument(f"[plan] Expected a batch of at most the data set ({dataset_size} records), received {batch}. Check the two numbers.")
    delta = target_delta if target_delta is not None else _usual_delta(dataset_size)
    warn_of_delta(delta, dataset_size, print_warning)
    warn_of_epsilon(target_epsilon, print_warning)
    with working("asking the accountant"):
        rows = [_row(size, dataset_size, epochs, target_epsilon, delta) for size in _sizes(batch, dataset_size)]
    chosen = next(row for row in rows if row.batch_size == batch)
    code = _code(chosen, target_epsilon, delta, epochs, max_grad_norm, dataset)
    hints = _hints(chosen, rows)
    if json:
        print_json(
            {
                "adjacency": "add_or_remove_one",
                "alternatives": [asdict(row) for row in rows],
                "code": code,
                "dataset_size": dataset_size,
                "epochs": epochs,
                "hints": hints,
                "plan": asdict(chosen),
                "target_delta": delta,
                "target_epsilon": target_epsilon,
            }
        )
    else:
        _print(chosen, rows, hints, code, delta)


def _usual_batch(dataset_size: int) -> int:
    power = 2 ** round(math.log2(math.sqrt(10 * dataset_size)))
    return max(1, min(int(power), dataset_size))


def _usual_delta(dataset_size: int) -> float:
    """A tenth of 1 / (number of records), rounded down to one digit."""
    tenth = 0.1 / dataset_size
    exponent = math.floor(math.log10(tenth))
    digit = max(1, math.floor(tenth / 10**exponent))
    return float(f"{digit}e{exponent}")


def _sizes(batch: int, dataset_size: int) -> list[int]:
    return sorted({size for factor in _FACTORS if 1 <= (size := int(batch * factor)) <= dataset_size} | {batch})


def _row(batch: int, dataset_size: int, epochs: int, epsilon: float, delta: float) -> Row:
    from hushgrad import accounting

    steps = epochs * -(-dataset_size // batch)
    rate = batch / dataset_size
    noise = accounting.calibrate_noise(target_epsilon=epsilon, target_delta=delta, sampling_rate=rate, steps=steps)
    step = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise))
    achieved = accounting.epsilon(accounting.SelfComposedDpEvent(step, steps), delta)[1]
    return Row(batch, rate, steps, noise, achieved, noise / batch, noise / batch / math.sqrt(steps))


def _hints(chosen: Row, rows: Sequence[Row]) -> list[str]:
    hints = [
        f"In every step the mean gradient carries noise of {_three(chosen.noise_in_mean)} x max_grad_norm in each coordinate. A model of d parameters "
        f"learns if what its gradients agree on is not far below {_three(chosen.noise_in_mean)} x sqrt(d)."
    ]
    double = next((row for row in rows if row.batch_size == 2 * chosen.batch_size), None)
    if double is not None:
        less = 100 * (1 - double.noise_in_mean / chosen.noise_in_mean)
        over_all = 100 * (1 - double.noise_in_all / chosen.noise_in_all)
        hints.append(
            f"Twice the batch, with the same epochs and budget: noise in a step {_change(less)}, in the training as a whole {_change(over_all)}; half as "
            "many steps, so raise the learning rate. It costs memory only: BatchMemoryManager splits what does not fit."
        )
    best = min(rows, key=lambda row: row.noise_in_all)
    if best.noise_in_all < 0.95 * chosen.noise_in_all and best.batch_size != chosen.batch_size:
        hints.append(f"Of these sizes {best.batch_size} has the least noise over the whole training.")
    if chosen.noise_multiplier < 0.5:
        hints.append("A noise multiplier below 0.5 means a weak target or few steps: single outliers may still show. Consider a smaller epsilon.")
    if chosen.steps < 100:
        hints.append(f"{chosen.steps} steps are few. More epochs, or smaller batches, give the optimizer more to do.")
    return hints


def _change(less: float) -> str:
    return f"{abs(less):.0f} % {'less' if less >= 0 else 'more'}"


def _three(value: float) -> str:
    return f"{value:.3g}"


def _code(row: Row, epsilon: float, delta: float, epochs: int, max_grad_norm: float, dataset: str) -> str:
    name = json_text.dumps(dataset)
    return (
        f"engine = hushgrad.PrivacyEngine(ledger={json_text.dumps(f'{dataset}.db')}, dataset={name})\n"
        "model, optimizer, loader = engine.make_private_with_epsilon(\n"
        "    module=model, optimizer=optimizer,\n"
        f"    data_loader=DataLoader(rows, batch_size={row.batch_size}),\n"
        f"    target_epsilon={epsilon!r}, target_delta={delta!r}, epochs={epochs}, max_grad_norm={max_grad_norm!r})"
    )


def _print(chosen: Row, rows: Sequence[Row], hints: Sequence[str], code: str, delta: float) -> None:
    print_line(f"noise_multiplier {rounded_up(chosen.noise_multiplier)}, {chosen.steps} steps, sampling rate {_three(chosen.sampling_rate)}", "bold")
    print_line(f"epsilon <= {rounded_up(chosen.epsilon_upper)} at delta {delta:g}, add_or_remove_one")
    print_line("")
    most = max(row.noise_in_all for row in rows)
    wide = min(40, console().width - 60)
    table = [
        (
            ("> " if row is chosen else "  ") + str(row.batch_size),
            str(row.steps),
            rounded_up(row.noise_multiplier),
            _three(row.noise_in_mean),
            _three(row.noise_in_all),
            *([_bar(row.noise_in_all / most, wide)] if wide >= 8 else []),
        )
        for row in rows
    ]
    print_table(("  batch", "steps", "noise_multiplier", "in a step", "in all", "")[: len(table[0])], table)
    print_text("Noise in the mean gradient in units of max_grad_norm: in a step, and over all steps together (less is better).")
    print_line("")
    for hint in hints:
        print_text(f"- {hint}")
    print_line("")
    print_line(code)


def _bar(share: float, width: int) -> str:
    from hushgrad.cli.plot import blocks

    return blocks()[8] * max(1, round(share * width))
