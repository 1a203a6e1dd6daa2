"""Attack risks against the exact trade-off of the Gaussian mechanism, and the searches built on them."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from hushgrad.accounting import (
    FinitePrecisionDpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from hushgrad.accounting.risk import AttackBounds, advantage, noise_for_risk, reconstruction_risk, tpr_at_fpr, trade_off
from hushgrad.errors import InvalidArgument


@pytest.mark.parametrize("mu", [0.2, 0.5, 1.0, 3.0])
def test_bounds_are_above_the_best_test_and_close(mu: float) -> None:
    """The best test of N(0, 1) against N(mu, 1) is a threshold: TPR = Phi(Phi^-1(FPR) + mu)."""
    event = GaussianDpEvent(1 / mu)
    for fpr in (1e-5, 1e-3, 0.01, 0.1, 0.5, 0.9):
        exact = float(norm.cdf(norm.ppf(fpr) + mu))
        assert exact <= tpr_at_fpr(event, fpr) <= exact * 1.05
    assert advantage(event) == pytest.approx(2 * norm.cdf(mu / 2) - 1, rel=1e-9)
    # golden/accounting.json, derived_gdp_mu0.5
    if mu == 0.5:
        assert advantage(event) == pytest.approx(0.197412651366, abs=1e-9)
        assert 0.033898939123 <= tpr_at_fpr(event, 0.01) <= 0.0345
    # Two contributions differ where a record is replaced.
    exact = float(norm.cdf(norm.ppf(0.01) + 2 * mu))
    assert exact <= reconstruction_risk(event, 0.01) <= exact * 1.05


def test_finite_precision_costs_an_advantage_next_to_nothing() -> None:
    ideal = SelfComposedDpEvent(PoissonSampledDpEvent(0.05, GaussianDpEvent(1.5)), 160)
    charged = FinitePrecisionDpEvent(ideal, 1e8, 160 * 1e-11, 0.0)
    assert advantage(ideal) <= advantage(charged) <= advantage(ideal) + 1e-3


def test_ends() -> None:
    assert tpr_at_fpr(NonPrivateDpEvent(), 0.01) == 1
    assert tpr_at_fpr(NoOpDpEvent(), 0.01) == pytest.approx(0.01)
    assert trade_off(NoOpDpEvent(), [0.0, 0.3, 1.0]) == [(0.0, 1.0), (0.3, pytest.approx(0.7)), (1.0, 0.0)]
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidArgument):
            tpr_at_fpr(GaussianDpEvent(1.0), bad)


def test_trade_off_is_convex_and_falling() -> None:
    event = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 500)
    points = trade_off(event, [i / 20 for i in range(21)])
    fnr = [value for _, value in points]
    assert all(a >= b for a, b in zip(fnr, fnr[1:], strict=False))
    assert all(a + c >= 2 * b - 1e-6 for a, b, c in zip(fnr, fnr[1:], fnr[2:], strict=False))
    assert all(f + n <= 1 + 1e-12 for f, n in points)


def test_noise_for_risk_meets_its_target() -> None:
    def risk(noise_multiplier: float) -> float:
        return advantage(GaussianDpEvent(noise_multiplier))

    noise = noise_for_risk(risk, 0.1)
    assert risk(noise) <= 0.1 < risk(noise / 1.002)
    with pytest.raises(InvalidArgument):
        noise_for_risk(risk, 1e-9)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("mu", [0.05, 0.2, 0.5, 1.0, 3.0, 8.0])
def test_one_look_bounds_all_attacks(mu: float, quick: bool) -> None:
    """Against the exact trade-off of a Gaussian; a replaced record moves it by two mu."""
    bounds = AttackBounds.of(GaussianDpEvent(1 / mu), quick=quick)
    exact = 2 * float(norm.cdf(mu / 2)) - 1
    assert exact * (1 - 1e-9) <= bounds.advantage <= exact * (1.4 if quick else 1 + 1e-9) + 0.1 * quick
    for fpr in (0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 1.0):
        one, two = (float(norm.cdf(norm.ppf(fpr) + times * mu)) for times in (1, 2))
        assert one * (1 - 1e-9) <= bounds.tpr(fpr) <= one * (2.5 if quick else 1.1) + (1.1e-4 if quick else 1.1e-6)
        assert two * (1 - 1e-9) <= bounds.reconstruction(fpr) <= 1


def test_one_look_at_nothing_and_at_no_protection() -> None:
    nothing, open_ = AttackBounds.of(NoOpDpEvent()), AttackBounds.of(NonPrivateDpEvent())
    assert nothing.advantage == 0 and nothing.tpr(0.001) == pytest.approx(0.001) and nothing.reconstruction(0.001) == pytest.approx(0.001)
    assert open_.advantage == 1 and open_.tpr(0.001) == 1 and open_.reconstruction(0.0) == 1
    with pytest.raises(InvalidArgument):
        nothing.tpr(-0.1)
