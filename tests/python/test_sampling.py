"""Poisson batches as Python sees them: exact batch sizes, independence, refusals."""

from __future__ import annotations

import multiprocessing
import os

import mpmath
import pytest

from hushgrad import _core
from hushgrad.errors import InvalidArgument

FALSE_ALARM = 1e-6  # a statistical test below fails on a correct program once in a million runs


def chi_square_p(counts: list[int], masses: list[mpmath.mpf], samples: int) -> float:
    """p-value of Pearson's test; neighbouring cells are joined until each expects at least ten."""
    cells: list[tuple[mpmath.mpf, mpmath.mpf]] = []
    observed = expected = mpmath.mpf(0)
    for count, mass in zip(counts, masses, strict=True):
        observed += count
        expected += mass * samples
        if expected >= 10:
            cells.append((observed, expected))
            observed = expected = mpmath.mpf(0)
    last_observed, last_expected = cells.pop()
    cells.append((last_observed + observed, last_expected + expected))
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    return float(mpmath.gammainc(mpmath.mpf(len(cells) - 1) / 2, statistic / 2, regularized=True))


def test_sizes_are_binomial() -> None:
    population, rate, draws = 50, 0.07, 20_000
    sampler = _core.PoissonSampler(population, rate)
    counts = [0] * (population + 1)
    for _ in range(draws):
        counts[len(sampler.draw())] += 1
    q = mpmath.mpf(rate)
    masses = [mpmath.binomial(population, k) * q**k * (1 - q) ** (population - k) for k in range(population + 1)]
    assert counts[0] > 0, "empty batches happen: mass 0.027"
    assert chi_square_p(counts, masses, draws) > FALSE_ALARM


def test_records_are_taken_equally_often_and_independently_over_draws() -> None:
    population, rate, draws = 10, 0.4, 20_000
    sampler = _core.PoissonSampler(population, rate)
    table = [0, 0, 0, 0]  # by (in the first draw, in the second)
    for _ in range(draws // 2):
        first, second = set(sampler.draw()), set(sampler.draw())
        for record in range(population):
            table[2 * (record in first) + (record in second)] += 1
    q = mpmath.mpf(rate)
    masses = [(1 - q) ** 2, q * (1 - q), q * (1 - q), q * q]
    assert chi_square_p(table, masses, draws // 2 * population) > FALSE_ALARM


def test_rate_one_takes_everything_and_a_tiny_rate_nobody() -> None:
    assert _core.PoissonSampler(1000, 1.0).draw() == list(range(1000))
    assert _core.PoissonSampler(1000, 2.0**-70).draw() == []


def test_batches_are_ascending_indices() -> None:
    batch = _core.PoissonSampler(10_000, 0.3).draw()
    assert isinstance(batch, list) and all(type(i) is int for i in batch)
    assert batch == sorted(set(batch)) and 0 <= batch[0] and batch[-1] < 10_000


@pytest.mark.parametrize(
    ("population", "rate"),
    [(0, 0.5), (-3, 0.5), (10, 0.0), (10, -0.1), (10, 1.1), (10, float("nan")), (10, float("inf"))],
)
def test_refuses(population: int, rate: float) -> None:
    with pytest.raises(InvalidArgument, match=r"\[poisson\] Expected "):
        _core.PoissonSampler(population, rate)


def test_reports_what_is_to_be_charged() -> None:
    sampler = _core.PoissonSampler(10, 0.1)
    assert (sampler.population, sampler.sampling_rate, sampler.insecure) == (10, 0.1, False)


def test_insecure_seed_repeats_and_says_so() -> None:
    one, same, other = (_core.PoissonSampler(200, 0.5, insecure_seed=seed) for seed in (1, 1, 2))
    assert one.insecure
    first = one.draw()
    assert first == same.draw()
    assert first != other.draw()  # by chance: 2^-200
    assert first != one.draw()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_does_not_repeat_the_parents_batches() -> None:
    sampler = _core.PoissonSampler(200, 0.5)
    sampler.draw()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=lambda: queue.put(sampler.draw())) for _ in range(2)]
    for child in children:
        child.start()
    batches = [queue.get() for _ in children]
    for child in children:
        child.join()
    batches.append(sampler.draw())
    assert len({tuple(batch) for batch in batches}) == 3


def test_random_bytes() -> None:
    assert _core.random_bytes(0) == b""
    assert len(_core.random_bytes(5000)) == 5000
    assert _core.random_bytes(32) != _core.random_bytes(32)
    with pytest.raises(InvalidArgument):
        _core.random_bytes(-1)
