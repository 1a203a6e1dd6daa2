"""Settings far from any training, where rounding and overflow once put an upper end below the truth."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from hushgrad.accounting import (
    FinitePrecisionDpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    delta,
    epsilon,
)
from hushgrad.accounting.filter import GaussianFilter
from hushgrad.errors import BudgetExceeded


def sampled(q: float, noise_multiplier: float, steps: int) -> SelfComposedDpEvent:
    return SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(noise_multiplier)), steps)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, Theorem 8."""
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


# So many steps with so much noise that the composition is a Gaussian one of mu = q sqrt(steps (e^(1/s^2) - 1)) to far below a thousandth.
@pytest.mark.parametrize(
    ("q", "noise_multiplier", "steps"), [(1e-3, 1e5, 10**16), (0.5, 1e7, 4 * 10**14), (0.05584, 9.41e5, 212 * 10**12), (0.5, 1e9, 2**62), (1e-6, 227.0, 5 * 10**17)]
)
def test_mass_is_not_lost_over_any_number_of_steps(q: float, noise_multiplier: float, steps: int) -> None:
    mu = q * math.sqrt(steps * math.expm1(noise_multiplier**-2))
    assert delta(sampled(q, noise_multiplier, steps), 1.0)[1] >= gaussian_delta(mu, 1.0) * 0.999
    assert epsilon(sampled(q, noise_multiplier, steps), gaussian_delta(mu, 2.0))[1] >= 2 * 0.999


@pytest.mark.parametrize(("q", "noise_multiplier", "at", "truth"), [(0.01, 0.025, 720.0, 0.019276067502)])
def test_epsilons_whose_exponential_overflows_are_bounded(q: float, noise_multiplier: float, at: float, truth: float) -> None:
    assert delta(sampled(q, noise_multiplier, 2), at)[1] >= truth  # truth: mpmath


def test_what_is_exposed_whole_is_so_at_every_epsilon() -> None:
    event = FinitePrecisionDpEvent(NonPrivateDpEvent(), 1e9, 1e-12, 1e-12)
    assert delta(event, math.inf)[1] == 1


def test_a_release_with_hardly_any_loss_is_not_free() -> None:
    event: GaussianDpEvent | SelfComposedDpEvent = GaussianDpEvent(1e170)
    for _ in range(19):
        event = SelfComposedDpEvent(event, 2**62)
    with pytest.raises(BudgetExceeded):
        GaussianFilter(1.0, 1e-5).admit(event)
