"""`hushgrad calibrate`: how much noise, how many steps or how large a batch a target allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from hushgrad.cli.curve import Output, Plot, check_output, curve_of, show_curve
from hushgrad.cli.numbers import delta_value, positive, probability
from hushgrad.cli.output import Json, as_json, print_json, print_line, print_warning, rounded_up, working
from hushgrad.cli.search import nearest, nearest_whole
from hushgrad.cli.setting import (
    AdjacencyOption,
    Bands,
    BatchSize,
    CountNoise,
    DatasetSize,
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
    make_setting,
    scale,
    warn_of_delta,
    warn_of_epsilon,
)
from hushgrad.errors import InvalidArgument
_MOST_STEPS = 10**9


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate")(calibrate)


def calibrate(
    target_epsilon: Annotated[
        float | None, typer.Option(parser=positive, metavar="NUMBER", help="Epsilon that the whole training may cost.")
    ] = None,
    target_delta: Annotated[
        float | None, typer.Option(parser=delta_value, metavar="DELTA", help="Chance at which epsilon may fail, in (0, 1).")
    ] = None,
    target_advantage: Annotated[
        float | None, typer.Option(parser=probability, metavar="SHARE", help="Instead of epsilon: the largest TPR - FPR of a membership test.")
    ] = None,
    target_tpr: Annotated[
        float | None, typer.Option(parser=probability, metavar="SHARE", help="Instead of epsilon: the largest share of members found, at --fpr.")
    ] = None,
    fpr: Annotated[float, typer.Option(parser=probability, metavar="SHARE", help="Of --target-tpr: the share of others wrongly accused.")] = 0.001,
    target_reconstruction: Annotated[
        float | None, typer.Option(parser=probability, metavar="SHARE", help="Instead of epsilon: the largest chance to reconstruct a record.")
    ] = None,
    prior: Annotated[
        float, typer.Option(parser=probability, metavar="SHARE", help="Of --target-reconstruction: the chance to guess it without the training.")
    ] = 1e-6,
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
    plot: Plot = False,
    output: Output = "",
    json: Json = False,
) -> None:
    """Find what a target allows: leave out what you look for, the noise, the steps, or the sampling rate or batch size.

    Noise: `hushgrad calibrate --target-epsilon 3 --target-delta 1e-6 --sampling-rate 256/60000 --steps 14063`. What is found was
    asked for its own epsilon, so it is on the safe side.
    """
    check_output(output)
    more = {
        "mechanism": mechanism, "sampling": sampling, "max_batch_size": max_batch_size, "group_size": group_size,
        "sensitivity": sensitivity, "count_noise_stddev": count_noise, "bands": bands,
    }  # fmt: skip
    target = _target(target_epsilon, target_delta, target_advantage, target_tpr, fpr, target_reconstruction, prior)
    sizes = (sampling_rate, dataset_size, batch_size)
    with working("asking the accountant"):
        if noise_multiplier is None:
            found = _noise(target, make_setting(noise_multiplier=1.0, sampling_rate=sampling_rate, dataset_size=dataset_size,
                                                batch_size=batch_size, steps=steps, epochs=epochs, **more), adjacency)  # fmt: skip
        elif steps is None and epochs is None:
            found = _steps(target, Setting(noise_multiplier, 1, *scale(*sizes, sampling is Sampling.none), **more), adjacency)  # type: ignore[arg-type]
        elif sampling_rate is None and batch_size is None:
            found = _rate(target, noise_multiplier, dataset_size, steps, epochs, more, adjacency)
        else:
            raise InvalidArgument(
                "[calibrate] Expected one thing to look for, received noise, steps and batches. Leave out the one that you look for, or ask "
                "`hushgrad epsilon`."
            )
    _show(found, target, dataset_size, plot, output, json)


@dataclass(frozen=True)
class _Target:
    """What is not to be passed: epsilon at delta, or a risk of an attack."""

    name: str
    value: float
    at: dict[str, float]

    def of(self, setting: Setting, adjacency: str) -> float:
        from hushgrad import accounting
        from hushgrad.accounting import risk

        event = setting.event()
        if self.name == "epsilon":
            return accounting.epsilon(event, self.at["delta"], adjacency=adjacency)[1]
        if self.name == "advantage":
            return risk.advantage(event, adjacency=adjacency)
        if self.name == "tpr":
            return risk.tpr_at_fpr(event, self.at["fpr"], adjacency=adjacency)
        return risk.reconstruction_risk(event, self.at["prior"], adjacency=adjacency)


@dataclass(frozen=True)
class _Found:
    """What was looked for, the whole setting with it, and what it achieves."""

    name: str
    value: float
    setting: Setting
    adjacency: str
    achieved: float


def _target(
    epsilon: float | None, delta: float | None, advantage: float | None, tpr: float | None, fpr: float, reconstruction: float | None, prior: float
) -> _Target:
    given = [
        _Target(name, value, at)
        for name, value, at in (
            ("epsilon", epsilon, {"delta": delta or 0.0}),
            ("advantage", advantage, {}),
            ("tpr", tpr, {"fpr": fpr}),
            ("reconstruction", reconstruction, {"prior": prior}),
        )
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidArgument(
            f"[calibrate] Expected one target, received {len(given)}. Give --target-epsilon with --target-delta, --target-advantage, --target-tpr "
            "or --target-reconstruction."
        )
    (target,) = given
    if target.name == "epsilon" and delta is None:
        raise InvalidArgument("[calibrate] Expected --target-delta beside --target-epsilon, received none. A tenth of 1 / (records) is usual.")
    for name, floor in target.at.items():
        if name in ("fpr", "prior") and target.value <= floor:
            raise InvalidArgument(f"[calibrate] Expected a target above --{name} ({floor:g}), received {target.value:g}: that is what guessing gives.")
    return target


def _neighbours(target: _Target, setting: Setting, adjacency: AdjacencyOption) -> str:
    if adjacency is not None:
        return adjacency.value
    return "replace_one" if target.name == "reconstruction" and setting.sampling is Sampling.poisson else setting.adjacency.value


def _noise(target: _Target, setting: Setting, adjacency: AdjacencyOption) -> _Found:
    from hushgrad import accounting

    neighbours = _neighbours(target, setting, adjacency)
    usual = (Mechanism.gaussian, Sampling.poisson, 1)
    if target.name == "epsilon" and (setting.mechanism, setting.sampling, setting.group_size) == usual and neighbours != "replace_one":
        noise = accounting.calibrate_noise(
            target_epsilon=target.value, target_delta=target.at["delta"], sampling_rate=setting.sampling_rate, steps=setting.steps
        )
    else:
        noise = nearest(
            lambda value: target.of(replace(setting, noise_multiplier=value), neighbours), target.value, lowest=1e-2, highest=1e6, start=1.0, rising=True
        )
    return _found("noise_multiplier", noise, replace(setting, noise_multiplier=noise), target, neighbours)


def _steps(target: _Target, setting: Setting, adjacency: AdjacencyOption) -> _Found:
    neighbours = _neighbours(target, setting, adjacency)
    most = nearest_whole(lambda steps: target.of(setting.after(steps), neighbours), target.value, highest=_MOST_STEPS, start=1000)
    return _found("steps", most, setting.after(most), target, neighbours)


def _rate(
    target: _Target,
    noise_multiplier: float,
    dataset_size: int | None,
    steps: int | None,
    epochs: int | None,
    more: dict[str, Any],
    adjacency: AdjacencyOption,
) -> _Found:
    def with_batch(size: int) -> Setting:
        return make_setting(noise_multiplier=noise_multiplier, sampling_rate=None, dataset_size=dataset_size, batch_size=size, steps=steps,
                            epochs=epochs, **more)  # fmt: skip

    def with_rate(rate: float) -> Setting:
        return make_setting(noise_multiplier=noise_multiplier, sampling_rate=rate, dataset_size=None, batch_size=None, steps=steps,
                            epochs=epochs, **more)  # fmt: skip

    example = with_rate(0.5) if dataset_size is None else with_batch(1)
    neighbours = _neighbours(target, example, adjacency)
    if dataset_size is not None:
        size = nearest_whole(lambda batch: target.of(with_batch(batch), neighbours), target.value, highest=dataset_size, start=dataset_size // 100)
        return _found("batch_size", size, with_batch(size), target, neighbours)
    rate = nearest(lambda value: target.of(with_rate(value), neighbours), target.value, lowest=1e-9, highest=1.0, start=0.01, rising=False)
    return _found("sampling_rate", rate, with_rate(rate), target, neighbours)


def _found(name: str, value: float, setting: Setting, target: _Target, adjacency: str) -> _Found:
    return _Found(name, value, setting, adjacency, target.of(setting, adjacency))


def _show(found: _Found, target: _Target, dataset_size: int | None, plot: bool, output: str, json: bool) -> None:
    delta = target.at.get("delta")
    if delta is not None:
        warn_of_delta(delta, dataset_size, print_warning)
        warn_of_epsilon(found.achieved, print_warning)
    elif plot or output:
        raise InvalidArgument("[calibrate] Expected --target-epsilon with --plot and --output, received another target.")
    curves = {"pld": curve_of(found.setting, delta, "pld", found.adjacency)} if delta is not None and (plot or output) else {}
    if json:
        print_json(_document(found, target))
    else:
        value = rounded_up(found.value) if found.name == "noise_multiplier" else f"{found.value:.6g}" if found.name == "sampling_rate" else str(found.value)
        print_line(f"{found.name} {value}{' or more: the search ends there' if found.name == 'steps' and found.value == _MOST_STEPS else ''}", style="bold")
        what = "epsilon" if target.name == "epsilon" else target.name
        print_line(f"{what} <= {rounded_up(found.achieved)}{_at(target)}, {found.adjacency}")
        print_line(f"assumed: {found.setting.describe()}")
    show_curve(curves, delta or 0.0, plot=plot and not json, output=output)


def _at(target: _Target) -> str:
    return "".join(f" at {name} {value:g}" for name, value in target.at.items())


def _document(found: _Found, target: _Target) -> dict[str, Any]:
    setting = found.setting
    document: dict[str, Any] = {
        "adjacency": found.adjacency,
        "noise_multiplier": setting.noise_multiplier,
        "sampling_rate": setting.sampling_rate,
        "steps": setting.steps,
        f"target_{target.name}": target.value,
        f"{target.name}_upper": as_json(found.achieved),
        "found": found.name,
        **{f"target_{name}": value for name, value in target.at.items()},
    }
    sizes = {"batch_size": setting.batch_size, "dataset_size": setting.dataset_size}
    return document | {name: value for name, value in sizes.items() if value is not None}
