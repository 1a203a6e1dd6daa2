"""From a target to a parameter: how many steps, which sampling rate, batch size or clipping norm it allows.

Every result was asked for its own epsilon before it is returned, so it is on the safe side whatever the search did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from hushgrad.accounting._native import core
from hushgrad.accounting.bounds import ADD_OR_REMOVE_ONE, calibrate_noise, epsilon
from hushgrad.accounting.events import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    _handle_of,
)
from hushgrad.errors import InvalidArgument


@dataclass(frozen=True)
class Calibration:
    """A parameter and what it achieves: ``epsilon`` is the upper bound at the target's delta, at most the target."""

    value: float
    epsilon: float
    delta: float
    adjacency: str


def training(noise_multiplier: float, sampling_rate: float, steps: int) -> DpEvent:
    """DP-SGD on Poisson batches: the event of ``steps`` steps."""
    return SelfComposedDpEvent(PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier)), steps)


def _achieved(value: float, event: DpEvent, delta: float, adjacency: str) -> Calibration:
    return Calibration(value, epsilon(event, delta, adjacency=adjacency)[1], delta, adjacency)


def calibrate_steps(
    step: DpEvent, *, target_epsilon: float, target_delta: float, history: DpEvent | None = None
) -> Calibration:
    """The largest number of steps that fit into the target after ``history``: exact up to 10^4, above to 2e-4.

    Add-or-remove-one adjacency. Raises InvalidArgument for a target outside its domain.
    """
    past = history if history is not None else NoOpDpEvent()
    steps: int = core.affordable_steps(_handle_of(past), _handle_of(step), target_epsilon, target_delta)
    whole = ComposedDpEvent([past, SelfComposedDpEvent(step, steps)])
    return _achieved(float(steps), whole, target_delta, ADD_OR_REMOVE_ONE)


def calibrate(
    event_of: Callable[[float], DpEvent],
    *,
    target_epsilon: float,
    target_delta: float,
    lowest: float,
    highest: float,
    more_is_private: bool,
    tolerance: float = 1e-3,
    adjacency: str = ADD_OR_REMOVE_ONE,
) -> Calibration:
    """The parameter in [lowest, highest] that comes closest to the target from the safe side, to ``tolerance`` of itself.

    ``event_of(parameter)`` spends less for larger parameters if ``more_is_private``, else more. This searches between
    values that meet the target and values that do not; only one that met it is returned.

    Raises InvalidArgument where the safest end of the interval misses the target.
    """
    if not 0 < lowest < highest:
        raise InvalidArgument(f"[calibrate] Expected 0 < lowest < highest, received {lowest} and {highest}.")

    def meets(value: float) -> bool:
        return epsilon(event_of(value), target_delta, adjacency=adjacency)[1] <= target_epsilon

    safe, best = (highest, lowest) if more_is_private else (lowest, highest)
    if not meets(safe):
        raise InvalidArgument(
            f"[calibrate] Expected a target that the parameter {safe} meets, received target_epsilon {target_epsilon} at "
            f"target_delta {target_delta}. Raise the target."
        )
    if meets(best):
        return _achieved(best, event_of(best), target_delta, adjacency)
    while abs(safe - best) > tolerance * min(safe, best):
        middle = (safe * best) ** 0.5
        if meets(middle):
            safe = middle
        else:
            best = middle
    return _achieved(safe, event_of(safe), target_delta, adjacency)


def calibrate_sampling_rate(
    *, target_epsilon: float, target_delta: float, noise_multiplier: float, steps: int
) -> Calibration:
    """The largest Poisson sampling rate in [1e-9, 1] that the target allows."""
    return calibrate(
        lambda rate: training(noise_multiplier, rate, steps),
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        lowest=1e-9,
        highest=1.0,
        more_is_private=False,
    )


def _first_that_meets(target_epsilon: float, achieved: Callable[[float], Calibration], values: Iterator[float]) -> Calibration:
    """Of values that spend less and less. An upper bound may rise a little where the truth falls."""
    return next(found for found in map(achieved, values) if found.epsilon <= target_epsilon)


def calibrate_batch_size(
    *, target_epsilon: float, target_delta: float, noise_multiplier: float, dataset_size: int, steps: int
) -> Calibration:
    """The largest whole expected batch size that the target allows; 0 where not even 1 does."""
    rate = calibrate_sampling_rate(
        target_epsilon=target_epsilon, target_delta=target_delta, noise_multiplier=noise_multiplier, steps=steps
    ).value

    def achieved(size: float) -> Calibration:
        return _achieved(size, training(noise_multiplier, size / dataset_size, steps), target_delta, ADD_OR_REMOVE_ONE)

    return _first_that_meets(target_epsilon, achieved, map(float, range(int(rate * dataset_size), -1, -1)))


def calibrate_clipping_norm(
    *, target_epsilon: float, target_delta: float, noise_stddev: float, sampling_rate: float, steps: int
) -> Calibration:
    """The largest clipping norm whose noise of deviation ``noise_stddev`` (in the units of the sum) meets the target."""
    if not 0 < noise_stddev < float("inf"):
        raise InvalidArgument(f"[calibrate_clipping_norm] Expected a finite noise_stddev > 0, received {noise_stddev}.")
    noise_multiplier = calibrate_noise(
        target_epsilon=target_epsilon, target_delta=target_delta, sampling_rate=sampling_rate, steps=steps
    )
    if noise_multiplier == 0:
        return Calibration(float("inf"), 0.0, target_delta, ADD_OR_REMOVE_ONE)

    def achieved(norm: float) -> Calibration:
        return _achieved(norm, training(noise_stddev / norm, sampling_rate, steps), target_delta, ADD_OR_REMOVE_ONE)

    # Rounded down, so that the deviation is at least the multiplier times the norm.
    norm = noise_stddev / noise_multiplier * (1 - 1e-15)
    return _first_that_meets(target_epsilon, achieved, (norm * 0.999**i for i in count()))
