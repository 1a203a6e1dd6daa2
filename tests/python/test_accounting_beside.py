"""Random events that dp_accounting knows too: its distributions against our intervals.

HUSHGRAD_RANDOM_EVENTS=500 for more of them; the default is short.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from hushgrad.accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    TruncatedSubsampledGaussianDpEvent,
    epsilon,
)
from hushgrad.accounting.dp_accounting import to_dp_accounting
from hushgrad.errors import Unsupported

COUNT = int(os.environ.get("HUSHGRAD_RANDOM_EVENTS", "12"))


def between(rng: random.Random, low: float, high: float) -> float:
    return low * (high / low) ** rng.random()


def mixture(rng: random.Random) -> DpEvent:
    weights = [rng.random() for _ in range(rng.randint(2, 4))]
    shifts = tuple(rng.choice([0.0, 0.5, 1.0, 2.0]) for _ in weights)
    if not any(shifts):  # theirs refuses one that moves nothing
        shifts = (1.0, *shifts[1:])
    return MixtureOfGaussiansDpEvent(between(rng, 0.7, 5), shifts, tuple(w / sum(weights) for w in weights))


def truncated(rng: random.Random) -> DpEvent:
    n, q = rng.randint(50, 400), between(rng, 0.01, 0.2)
    return TruncatedSubsampledGaussianDpEvent(n, q, max(1, int(n * q * rng.choice([1, 1.3, 2, 3]))), between(rng, 0.7, 5))


KINDS: tuple[Callable[[random.Random], DpEvent], ...] = (
    lambda rng: GaussianDpEvent(between(rng, 0.5, 20)),
    lambda rng: PoissonSampledDpEvent(between(rng, 1e-3, 0.9), GaussianDpEvent(between(rng, 0.5, 10))),
    lambda rng: LaplaceDpEvent(between(rng, 0.5, 20)),
    lambda rng: PoissonSampledDpEvent(between(rng, 1e-2, 0.9), LaplaceDpEvent(between(rng, 0.5, 10))),
    mixture,
    truncated,
)


def random_event(rng: random.Random) -> tuple[DpEvent, int]:
    parts = [(rng.choice(KINDS)(rng), int(between(rng, 1, 60))) for _ in range(rng.choice([1, 1, 2, 3]))]
    return ComposedDpEvent([SelfComposedDpEvent(event, count) for event, count in parts]), sum(count for _, count in parts)


@pytest.mark.parametrize("seed", range(COUNT))
def test_its_value_lies_in_the_interval(seed: int) -> None:
    library = pytest.importorskip("dp_accounting", reason="dp_accounting is not installed")
    accountant = pytest.importorskip("dp_accounting.pld.pld_privacy_accountant")
    rng = random.Random(seed)
    adjacency, relation = rng.choice([("add_or_remove_one", "ADD_OR_REMOVE_ONE"), ("replace_one", "REPLACE_ONE")])
    event, steps = random_event(rng)
    target, interval = 10 ** -rng.uniform(2, 9), between(rng, 1e-4, 2e-3)
    theirs = accountant.PLDAccountant(getattr(library.NeighboringRelation, relation), value_discretization_interval=interval)
    try:
        lower, upper = epsilon(event, target, adjacency=adjacency)
        theirs.compose(to_dp_accounting(event))
    except (Unsupported, library.UnsupportedEventError):
        pytest.skip("one of both has no bound for this event and adjacency")
    value = float(theirs.get_epsilon(target))
    # Theirs is an upper bound: every loss is rounded up, by less than its interval.
    assert lower <= value * (1 + 1e-9) + 1e-12
    if "Truncated" not in event.to_json():  # two different upper bounds
        assert value <= upper * (1 + 1e-3) + steps * interval
