"""Filters and odometers: budgets for steps that are chosen while the training runs."""

from __future__ import annotations

import math
import sys

from hushgrad.accounting.bounds import delta as delta_of
from hushgrad.accounting.bounds import epsilon as epsilon_of
from hushgrad.accounting.events import ComposedDpEvent, DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hushgrad.errors import BudgetExceeded, InvalidArgument, Unsupported


# A sum of 1 / noise_multiplier^2 below this is no longer right to the last digits.
_SMALLEST_ALLOWED = 1e-290


class GaussianFilter:
    """A privacy filter for Gaussian releases whose noise may depend on all earlier results.

    Guarantee: whatever is chosen, and whenever it stops, everything that was admitted is (target_epsilon,
    target_delta)-DP together. What is limited is the sum of 1 / noise_multiplier^2, so no delta and no epsilon is lost to
    adaptivity (Feldman and Zrnic 2021 for Renyi divergences; Smith and Thakurta 2022; Koskela, Tobaben and Honkela 2023
    for Gaussian DP). Poisson-sampled steps of adaptive parameters have no such tight filter: they are admitted as if they
    were not sampled, which is an upper bound.

    Raises InvalidArgument for a target that no Gaussian release meets.
    """

    def __init__(self, target_epsilon: float, target_delta: float) -> None:
        if not 0 < target_epsilon < float("inf"):
            raise InvalidArgument(f"[GaussianFilter] Expected a finite target_epsilon > 0, received {target_epsilon}.")
        # The largest mu^2 whose upper end meets the target, from below.
        low, high = 0.0, 1.0
        while self._epsilon(high, target_delta) <= target_epsilon:
            low, high = high, 2 * high
        while high - low > 1e-9 * high:
            if high < _SMALLEST_ALLOWED:
                raise InvalidArgument(
                    f"[GaussianFilter] Expected a target that a Gaussian release meets, received target_epsilon {target_epsilon} "
                    f"at target_delta {target_delta}. Raise the target."
                )
            middle = (low + high) / 2
            low, high = (middle, high) if self._epsilon(middle, target_delta) <= target_epsilon else (low, middle)
        self._allowed = low
        self._spent = 0.0

    @staticmethod
    def _epsilon(mu_squared: float, delta: float) -> float:
        return epsilon_of(GaussianDpEvent(mu_squared**-0.5), delta)[1]

    @property
    def remaining(self) -> float:
        """The sum of 1 / noise_multiplier^2 that still fits."""
        return self._allowed - self._spent

    def admit(self, event: DpEvent) -> None:
        """Charge ``event`` before it runs. Raises BudgetExceeded, charging nothing, if it does not fit; Unsupported for
        events other than (sampled, repeated, composed) Gaussian releases."""
        cost = _mu_squared(event) * (1 + 1e-12)
        if not self._spent + cost <= self._allowed:
            raise BudgetExceeded(
                f"[GaussianFilter] Expected a release of at most {self.remaining:.6g} in 1 / noise_multiplier^2, received "
                f"{cost:.6g}. Add noise or stop here."
            )
        self._spent = (self._spent + cost) * (1 + 1e-15)


def _mu_squared(event: DpEvent) -> float:
    if isinstance(event, GaussianDpEvent):
        return _inverse_square(event.noise_multiplier)
    if isinstance(event, PoissonSampledDpEvent):
        return _mu_squared(event.event) if event.sampling_probability > 0 else 0.0
    if isinstance(event, SelfComposedDpEvent):
        return event.count * _mu_squared(event.event) if event.count else 0.0
    if isinstance(event, ComposedDpEvent):
        return math.fsum(map(_mu_squared, event.events))
    raise Unsupported(f"[GaussianFilter] Expected Gaussian releases, received {type(event).__name__}.")


def _inverse_square(noise_multiplier: float) -> float:
    """1 / noise_multiplier^2; never 0, since any release costs something, and inf where it is beyond all numbers."""
    if noise_multiplier < 1e-150:
        return math.inf
    return max(noise_multiplier**-2, sys.float_info.min)


class Odometer:
    """How much was spent after each step, where the sequence of steps was fixed in advance.

    Every reading is an upper bound for a training that stops there, if what is run next does not depend on results but
    for the steps' own (adaptive) computation. To choose events or the stopping time by results, use GaussianFilter.
    """

    def __init__(self, target_delta: float) -> None:
        self._delta = target_delta
        self._events: list[tuple[DpEvent, int]] = []

    def add(self, event: DpEvent, count: int = 1) -> None:
        """Record ``count`` more runs of ``event``."""
        if self._events and self._events[-1][0] == event:
            count += self._events.pop()[1]
        self._events.append((event, count))

    @property
    def event(self) -> DpEvent:
        """Everything so far."""
        return ComposedDpEvent([SelfComposedDpEvent(event, count) for event, count in self._events])

    def epsilon(self) -> tuple[float, float]:
        """Bounds of epsilon at the odometer's delta."""
        return epsilon_of(self.event, self._delta)

    def delta(self, epsilon: float) -> tuple[float, float]:
        """Bounds of delta at ``epsilon``."""
        return delta_of(self.event, epsilon)
