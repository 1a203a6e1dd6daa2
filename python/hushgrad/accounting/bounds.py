"""Bounds of epsilon and delta, and their inverse."""

from __future__ import annotations

from hushgrad.accounting._native import core
from hushgrad.accounting.events import DpEvent, _handle_of

ADD_OR_REMOVE_ONE = "add_or_remove_one"
REPLACE_ONE = "replace_one"
ZERO_OUT = "zero_out"


def epsilon(
    event: DpEvent, delta: float, accountant: str = "pld", *, adjacency: str = ADD_OR_REMOVE_ONE
) -> tuple[float, float]:
    """Bounds ``(lower, upper)`` of the epsilon of ``event`` at ``delta``, under ``adjacency``.

    Guarantee: the event is (upper, delta)-DP and is not (e, delta)-DP for any e < lower. No event at all is (0, 0);
    noise multiplier 0 and NonPrivateDpEvent have upper = inf.

    Args:
        event: any composition of the events of this package.
        delta: in (0, 1), well below 1 / data set size.
        accountant: "pld" (tightest) or "rdp" (upper bounds only).
        adjacency: "add_or_remove_one", "replace_one" (a plain sum moves by two contributions) or "zero_out".

    Raises:
        InvalidArgument: delta outside (0, 1) or NaN, unknown accountant, not an event.
        Unsupported: a part of the event has no proven bound; the message names it.
    """
    bounds: tuple[float, float] = core.epsilon(_handle_of(event), delta, accountant, adjacency)
    return bounds


def delta(
    event: DpEvent, epsilon: float, accountant: str = "pld", *, adjacency: str = ADD_OR_REMOVE_ONE
) -> tuple[float, float]:
    """Bounds ``(lower, upper)`` of the smallest delta for which ``event`` is (epsilon, delta)-DP; both in [0, 1].

    Args:
        event: as for epsilon().
        epsilon: >= 0; infinity is allowed.
        accountant: "pld" or "rdp".
        adjacency: as for epsilon().

    Raises:
        InvalidArgument: epsilon negative or NaN, unknown accountant, not an event.
        Unsupported: as for epsilon().
    """
    bounds: tuple[float, float] = core.delta(_handle_of(event), epsilon, accountant, adjacency)
    return bounds


def calibrate_noise(*, target_epsilon: float, target_delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier (to about 1e-3, rounded up) that keeps the training within the target.

    Guarantee: ``epsilon(SelfComposedDpEvent(PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(result)), steps),
    target_delta)[1] <= target_epsilon``.

    Args:
        target_epsilon: > 0 and finite.
        target_delta: in (0, 1).
        sampling_rate: in [0, 1]: expected_batch_size / data set size. 0 needs no noise.
        steps: >= 0 optimizer steps. 0 needs no noise.

    Raises:
        InvalidArgument: an argument is outside its domain, or no noise multiplier up to 1e9 meets the target.
    """
    noise_multiplier: float = core.calibrate_noise(target_epsilon, target_delta, sampling_rate, steps)
    return noise_multiplier
