"""`hushgrad epsilon`: what a training costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hushgrad.cli.curve import Curve, Output, Plot, check_output, curve_of, show_curve
from hushgrad.cli.output import Json, as_json, print_json, print_line, print_table, print_text, print_warning, rounded_down, rounded_up
from hushgrad.cli.setting import (
    Adjacency,
    AdjacencyOption,
    Bands,
    BatchSize,
    CountNoise,
    DatasetSize,
    Delta,
    Epochs,
    GroupSize,
    MaxBatchSize,
    Mechanism,
    MechanismOption,
    NoiseMultiplier,
    Sampling,
    SamplingOption,
    SamplingRate,
    Sensitivity,
    Setting,
    Steps,
    TuningRuns,
    make_setting,
    warn_of_delta,
    warn_of_epsilon,
)
from hushgrad.errors import HushgradError, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from hushgrad.accounting import DpEvent

_ACCOUNTANTS = ("pld", "rdp", "gdp")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("epsilon")(epsilon)


def epsilon(
    delta: Delta,
    noise_multiplier: NoiseMultiplier = None,
    sampling_rate: SamplingRate = None,
    dataset_size: DatasetSize = None,
    batch_size: BatchSize = None,
    steps: Steps = None,
    epochs: Epochs = None,
    mechanism: MechanismOption = Mechanism.gaussian,
    sampling: SamplingOption = Sampling.poisson,
    adjacency: AdjacencyOption = None,
    max_batch_size: MaxBatchSize = None,
    group_size: GroupSize = 1,
    sensitivity: Sensitivity = 1,
    count_noise: CountNoise = None,
    bands: Bands = 1,
    tuning_runs: TuningRuns = None,
    event: Annotated[
        str, typer.Option(metavar="FILE", help="Ask about the event in this JSON file (- is standard input), as ledgers and exports hold it, instead.")
    ] = "",
    compare: Annotated[bool, typer.Option("--compare", help="Show every accountant.")] = False,
    compare_sampling: Annotated[bool, typer.Option("--compare-sampling", help="Show the same noise and steps under other samplings.")] = False,
    risk: Annotated[bool, typer.Option("--risk", help="Show what an attacker could do at best.")] = False,
    plot: Plot = False,
    output: Output = "",
    json: Json = False,
) -> None:
    """Show what a training costs: epsilon as an interval, a comparison, a risk, a table and plot over steps.

    DP-SGD with Poisson batches by default: `hushgrad epsilon --noise-multiplier 1.1 --dataset-size 60000 --batch-size 256 --epochs 60 --delta 1e-6`.
    """
    check_output(output)
    if event:
        setting, asked = None, _read_event(event)
        if compare_sampling or plot or output:
            raise InvalidArgument("[epsilon] Expected --event alone or with --compare and --risk, received a question about steps or sampling.")
    else:
        if noise_multiplier is None:
            raise InvalidArgument("[epsilon] Expected --noise-multiplier, received none. `hushgrad calibrate` finds the one for a target.")
        setting = make_setting(
            noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, dataset_size=dataset_size, batch_size=batch_size, steps=steps,
            epochs=epochs, mechanism=mechanism, sampling=sampling, max_batch_size=max_batch_size, group_size=group_size, sensitivity=sensitivity,
            count_noise_stddev=count_noise, bands=bands, tuning_runs=tuning_runs,
        )  # fmt: skip
        asked = setting.event()
    neighbours = (adjacency or (setting.adjacency if setting else Adjacency.add_or_remove_one)).value
    answers = _answers(asked, delta, neighbours, _ACCOUNTANTS if compare else ("pld",))
    lower, upper = answers["pld"]
    warn_of_delta(delta, dataset_size, print_warning)
    warn_of_epsilon(upper, print_warning)
    samplings = _under_other_samplings(setting, delta, neighbours) if compare_sampling and setting else []
    risks = risks_of(asked, neighbours) if risk else {}
    curves = _curves(setting, delta, neighbours, tuple(answers)) if setting and (plot or output) else {}
    if json:
        _print_document(delta, neighbours, answers, compare, samplings, risks, curves)
    else:
        _print(setting, delta, neighbours, answers, compare, samplings, risks)
    show_curve(curves, delta, plot=plot and not json, output=output)


def _read_event(path: str) -> DpEvent:
    from hushgrad.accounting import event_from_json
    from hushgrad.cli.files import read_small

    return event_from_json(read_small(path))


def _answers(event: DpEvent, delta: float, adjacency: str, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Bounds by accountant; one that has no proven bound of this event is left out, except the first."""
    from hushgrad import accounting

    found = {names[0]: accounting.epsilon(event, delta, names[0], adjacency=adjacency)}
    for name in names[1:]:
        try:
            found[name] = accounting.epsilon(event, delta, name, adjacency=adjacency)
        except (Unsupported, InvalidArgument):
            continue
    return found


def _curves(setting: Setting, delta: float, adjacency: str, names: tuple[str, ...]) -> dict[str, Curve]:
    return {name: curve_of(setting, delta, name, adjacency) for name in names}


def _under_other_samplings(setting: Setting, delta: float, adjacency: str) -> list[dict[str, Any]]:
    """The same noise, steps and batch under every sampling that has a bound; asked for, or with the adjacency that has one."""
    from dataclasses import replace

    from hushgrad import accounting

    rows = []
    for sampling in Sampling:
        other = replace(setting, sampling=sampling)
        for neighbours in dict.fromkeys((adjacency, other.adjacency.value)):
            try:
                lower, upper = accounting.epsilon(other.event(), delta, adjacency=neighbours)
            except HushgradError:
                continue
            rows.append({"sampling": sampling.value, "adjacency": neighbours, "epsilon_lower": as_json(lower), "epsilon_upper": as_json(upper)})
            break
    return rows


def risks_of(event: DpEvent, adjacency: str) -> dict[str, float]:
    """Upper bounds of what a test of membership can do, whoever runs it."""
    from hushgrad.accounting import risk

    return {
        "membership_advantage": risk.advantage(event, adjacency=adjacency),
        "tpr_at_fpr_0.001": risk.tpr_at_fpr(event, 0.001, adjacency=adjacency),
        "tpr_at_fpr_0.01": risk.tpr_at_fpr(event, 0.01, adjacency=adjacency),
    }


def print_risks(risks: dict[str, float]) -> None:
    """In plain words."""
    right = rounded_up(100 * (1 + risks["membership_advantage"]) / 2)[:-2]
    print_text(f"Whoever sees everything released and guesses whether one given record was used is right at most {right} times in 100 (50 by tossing a coin).")
    for false, name in (("0.1 %", "tpr_at_fpr_0.001"), ("1 %", "tpr_at_fpr_0.01")):
        print_text(f"A test that wrongly accuses {false} of the others finds at most {rounded_up(100 * risks[name])[:-2]} % of the members.")


def _print(
    setting: Setting | None,
    delta: float,
    adjacency: str,
    answers: dict[str, tuple[float, float]],
    compare: bool,
    samplings: list[dict[str, Any]],
    risks: dict[str, float],
) -> None:
    lower, upper = answers["pld"]
    known = f"and >= {rounded_down(lower)}" if lower > 0 else "an upper bound"
    print_line(f"epsilon <= {rounded_up(upper)} ({known}) at delta {delta:g}, {adjacency}", style="bold")
    if setting is not None:
        print_line(f"assumed: {setting.describe()}")
    if compare:
        print_table(
            ("accountant", "epsilon at most", "at least"),
            [(name, rounded_up(b), rounded_down(a) if a > 0 else "-") for name, (a, b) in answers.items()],
        )
        if "gdp" not in answers:
            print_text("gdp is not shown: it is exact for Gaussian noise without sampling only; with sampling it understates.")
    if samplings:
        print_table(
            ("sampling", "adjacency", "epsilon at most", "at least"),
            [(r["sampling"], r["adjacency"], _shown(r["epsilon_upper"], up=True), _shown(r["epsilon_lower"])) for r in samplings],
        )
        print_text("Claim the sampling that your loader does. hushgrad trains with poisson and shuffled.")
    if risks:
        print_risks(risks)


def _shown(value: float | str, up: bool = False) -> str:
    if isinstance(value, str):
        return value
    return rounded_up(value) if up else rounded_down(value) if value > 0 else "-"


def _print_document(
    delta: float,
    adjacency: str,
    answers: dict[str, tuple[float, float]],
    compare: bool,
    samplings: list[dict[str, Any]],
    risks: dict[str, float],
    curves: dict[str, Curve],
) -> None:
    lower, upper = answers["pld"]
    document: dict[str, Any] = {"adjacency": adjacency, "delta": delta, "epsilon_lower": as_json(lower), "epsilon_upper": as_json(upper)}
    if compare:
        document["accountants"] = {name: [as_json(a), as_json(b)] for name, (a, b) in answers.items()}
    if samplings:
        document["samplings"] = samplings
    if risks:
        document["risks"] = risks
    if curves:
        document["over_steps"] = {name: [[count, as_json(a), as_json(b)] for count, a, b in points] for name, points in curves.items()}
    print_json(document)
