"""Both ends of epsilon are within a thousandth of each other all over the range of ordinary trainings, corners included.

HUSHGRAD_RANDOM_SETTINGS=5000 for more of them; the default is short.
"""

from __future__ import annotations

import os
import random

import pytest

from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, epsilon

COUNT = int(os.environ.get("HUSHGRAD_RANDOM_SETTINGS", "200"))
Setting = tuple[float, float, int, float]


def width(q: float, sigma: float, steps: int, delta: float) -> float:
    lower, upper = epsilon(SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps), delta)
    assert 0 <= lower <= upper < float("inf")
    return (upper - lower) / upper if upper > 0 else 0.0


def share(rng: random.Random) -> float:
    """Uniform, one in six at an end."""
    return min(1.0, max(0.0, (rng.random() - 0.08) / 0.84))


def setting(rng: random.Random, rare: bool) -> Setting:
    q_share, delta_share = share(rng) * (0.35 if rare else 1), share(rng) * (0.3 if rare else 1)
    sigma, steps = 0.3 * (50 / 0.3) ** share(rng), int(1e6 ** share(rng) + 1e-9)
    return min(1.0, 1e-6 * 1e6**q_share), sigma, steps, 10 ** (-12 + 10.5 * delta_share)


@pytest.mark.parametrize("rare", [False, True])
def test_random_settings(rare: bool) -> None:
    rng = random.Random(COUNT + rare)
    settings = [setting(rng, rare) for _ in range(COUNT // 2)]
    wide = [(found, *one) for one in settings if (found := width(*one)) > 1e-3]
    assert wide == []


# Once wider: rounding, a grid too coarse for the bulk or too short for the rarest losses, or a lower end of 0.
@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta"),
    [
        (1e-6, 0.65, 1_000_000, 1e-12),
        (1.12e-6, 0.3, 3, 3.8e-11),
        (1e-6, 0.491, 2912, 1e-12),
        (6.2283256769199828e-05, 0.50524704929978104, 4, 1e-12),
        (1e-6, 0.43705905916804633, 898_571, 0.0017297956831572806),
        (1e-6, 0.34587708676517365, 1_000_000, 0.011942744284189937),
        (1e-6, 0.54791860696202888, 483_777, 6.7569063520832538e-06),
        (1e-6, 0.73723684466661243, 262_200, 1e-12),
        (5.6442313646393607e-06, 0.69450666665311606, 1_000_000, 1e-12),
        (1e-6, 0.559, 2, 1e-12),
        (1e-6, 0.404, 4, 7.3e-9),
    ],
)
def test_settings_that_were_wide(q: float, sigma: float, steps: int, delta: float) -> None:
    assert width(q, sigma, steps, delta) < 1e-3
