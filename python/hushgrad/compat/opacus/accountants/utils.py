"""How much noise a target needs."""

from __future__ import annotations

from typing import Any

from hushgrad import accounting
from hushgrad.compat.opacus.accountants.registry import create_accountant
from hushgrad.errors import InvalidArgument

__all__ = ["MAX_SIGMA", "get_noise_multiplier"]

MAX_SIGMA = 1e6


def get_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    epochs: float | None = None,
    steps: int | None = None,
    accountant: str = "rdp",
    epsilon_tolerance: float = 0.01,
    **kwargs: Any,
) -> float:
    """A noise multiplier for which the training costs at most ``target_epsilon``, by the named accountant.

    Either ``steps``, or ``epochs`` of ``1 / sample_rate`` steps. ``epsilon_tolerance`` is how far below the target the
    result may stay. Raises InvalidArgument (a ValueError) for both or neither, and for a budget that no noise meets.
    """
    if (steps is None) == (epochs is None):
        raise InvalidArgument(
            "[get_noise_multiplier] Expected either steps or epochs, received "
            + ("both." if steps is not None else "neither.")
        )
    count = steps if steps is not None else int((epochs or 0) / sample_rate)
    if accountant in ("prv", "gdp"):
        return accounting.calibrate_noise(
            target_epsilon=target_epsilon, target_delta=target_delta, sampling_rate=sample_rate, steps=count
        )
    return _bisect(target_epsilon, target_delta, sample_rate, count, accountant, epsilon_tolerance, kwargs)


def _bisect(
    target: float, delta: float, rate: float, steps: int, mechanism: str, tolerance: float, arguments: dict[str, Any]
) -> float:
    accountant = create_accountant(mechanism)

    def epsilon(noise_multiplier: float) -> float:
        accountant.history = [(noise_multiplier, rate, steps)]
        return float(accountant.get_epsilon(delta, **arguments))

    low, high = 0.0, 1.0
    while not (reached := epsilon(high)) <= target:
        low, high = high, 2 * high
        if high > MAX_SIGMA:
            raise InvalidArgument(
                f"[get_noise_multiplier] Expected a target that noise can meet, received epsilon {target} at delta {delta}: no multiplier "
                f"up to {MAX_SIGMA:.0e} does. Raise target_epsilon or take fewer steps."
            )
    while target - reached > tolerance and high - low > 1e-6 * high:
        middle = (low + high) / 2
        if (found := epsilon(middle)) <= target:
            high, reached = middle, found
        else:
            low = middle
    return high
