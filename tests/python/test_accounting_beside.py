"""Random events that dp_accounting knows too: its distributions against our intervals.

HUSHGRAD_RANDOM_EVENTS=500 for more of them; the default is short.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable

import pytest
from scipy.stats import binom

from hushgrad.accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    TruncatedSubsampledGaussianDpEvent,
    delta,
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
    if len(set(shifts)) == 1:  # theirs fails on these
        shifts = (shifts[0] + 1.0, *shifts[1:])
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


#: Of these something is known when a record is replaced.
KINDS_REPLACED = (KINDS[0], KINDS[1], KINDS[2], KINDS[5])


def random_event(rng: random.Random, adjacency: str) -> tuple[DpEvent, int]:
    kinds = KINDS_REPLACED if adjacency == "replace_one" else KINDS
    parts = [(rng.choice(kinds)(rng), int(between(rng, 1, 60))) for _ in range(rng.choice([1, 1, 2, 3]))]
    return ComposedDpEvent([SelfComposedDpEvent(event, count) for event, count in parts]), sum(count for _, count in parts)


def second_order(event: DpEvent, adjacency: str, upper: float, target: float, steps: int, interval: float) -> float:
    """How far connected dots lie above the truth where delta falls smoothly: docs/accounting.md, "Discretisation"."""
    beyond = 1.05 * upper
    slope = (math.log(target) - math.log(delta(event, beyond, adjacency=adjacency)[1])) / (beyond - upper)
    return steps * interval**2 * (1 + slope) / 8


def attained(event: DpEvent) -> DpEvent:
    """What truncated sampling spends at least: all other records add nothing, and this one is kept as often as it is."""
    if isinstance(event, ComposedDpEvent):
        return ComposedDpEvent([attained(part) for part in event.events])
    if isinstance(event, SelfComposedDpEvent):
        return SelfComposedDpEvent(attained(event.event), event.count)
    if not isinstance(event, TruncatedSubsampledGaussianDpEvent):
        return event
    q, batch = event.sampling_probability, event.truncated_batch_size
    others = range(event.dataset_size)
    kept = sum(float(binom.pmf(m, event.dataset_size - 1, q)) * min(1.0, batch / (m + 1)) for m in others)
    return PoissonSampledDpEvent(q * kept, GaussianDpEvent(event.noise_multiplier))


@pytest.mark.parametrize("seed", range(COUNT))
def test_its_value_lies_in_the_interval(seed: int) -> None:
    library = pytest.importorskip("dp_accounting", reason="dp_accounting is not installed")
    accountant = pytest.importorskip("dp_accounting.pld.pld_privacy_accountant")
    rng = random.Random(seed)
    adjacency, relation = rng.choice([("add_or_remove_one", "ADD_OR_REMOVE_ONE"), ("replace_one", "REPLACE_ONE")])
    event, steps = random_event(rng, adjacency)
    target, interval = 10 ** -rng.uniform(2, 9), between(rng, 1e-4, 2e-3)
    try:
        lower, upper = epsilon(event, target, adjacency=adjacency)
        interval = min(interval, max(1e-4, 0.05 * upper / math.sqrt(steps)))
        theirs = accountant.PLDAccountant(getattr(library.NeighboringRelation, relation), value_discretization_interval=interval)
        theirs.compose(to_dp_accounting(event))
    except (Unsupported, library.UnsupportedEventError):
        pytest.skip("one of both has no bound for this event and adjacency")
    value = float(theirs.get_epsilon(target))
    # Theirs is an upper bound: every loss is split onto the two next multiples of its interval.
    assert lower <= value * (1 + 1e-9) + 1e-12
    if upper == 0:
        return
    if "Truncated" in event.to_json():
        # Two different upper bounds: ours is the smaller one, and not below what some data attain.
        assert epsilon(attained(event), target, adjacency=adjacency)[0] <= upper
        assert upper <= value * (1 + 1e-3)
        return
    # The losses of Laplace noise end, and next to their end theirs lie beyond it.
    apart = steps * interval if "Laplace" in event.to_json() else second_order(event, adjacency, upper, target, steps, interval)
    assert value <= upper * (1 + 1e-6) + apart
