"""The lattice Gaussian as Python sees it, against exact arithmetic and mpmath."""

from __future__ import annotations

import math
from array import array
from fractions import Fraction

import mpmath
import pytest

from hushgrad import _core
from hushgrad.errors import InvalidArgument, PrivacyViolation

NORMAL_LIMIT = 4.892  # |z| of a standard normal passes it once in a million runs


def noisy(values: list[float], noise_multiplier: float, clip: float, scale: float = 1.0, **kwargs: int) -> array[float]:
    buffer = array("f", values)
    _core.add_lattice_noise_for_testing(buffer, noise_multiplier, clip, scale, **kwargs)
    return buffer


@pytest.mark.parametrize("noise_multiplier", [1e-6, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("clip", [0.1, 1.0, 7.3])
@pytest.mark.parametrize("dimension", [1, 10, 25_000_000, 10**9])
def test_noise_pays_for_rounding_exactly(noise_multiplier: float, clip: float, dimension: int) -> None:
    lattice = _core.choose_lattice(noise_multiplier, clip, dimension)
    grid, charged, c = Fraction(lattice.grid), Fraction(noise_multiplier), Fraction(clip)
    assert grid.numerator == 1 and grid.denominator & (grid.denominator - 1) == 0
    assert dimension * grid**2 <= (c / 2**14) ** 2
    # noise_stddev / noise_multiplier >= C + sqrt(d) * grid, squared to stay rational.
    room = Fraction(lattice.noise_stddev) / charged - c
    assert room > 0 and room**2 >= dimension * grid**2
    assert lattice.noise_stddev <= noise_multiplier * clip * (1 + 2.0**-13)


def test_choose_lattice_edges() -> None:
    assert _core.choose_lattice(0.0, 1.0, 10).noise_stddev == 0.0
    assert _core.choose_lattice(1.0, 1.0, 0).grid == 2.0**-14
    for bad in [(-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, math.nan), (1.0, math.inf)]:
        with pytest.raises(InvalidArgument, match=r"\[noise\] Expected "):
            _core.choose_lattice(*bad, 10)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("clip", [0.1, 1.0, 10.0])
def test_standard_deviation_is_noise_multiplier_times_max_grad_norm(clip: float, exact: bool) -> None:
    n = 400_000
    out = noisy([0.0] * n, 1.5, clip, exact=exact)
    stddev = 1.5 * clip
    assert abs(math.fsum(out) / n / stddev) * math.sqrt(n) < NORMAL_LIMIT
    variance = math.fsum(v * v for v in out) / n
    assert abs(variance / stddev**2 - 1) < NORMAL_LIMIT * math.sqrt(2 / n) + 2e-4


@pytest.mark.parametrize("exact", [False, True])
def test_distribution_function_is_the_normal_one(exact: bool) -> None:
    """Kolmogorov and Smirnov: sqrt(n) times the distance passes 2.7 with probability 2 exp(-2 * 2.7^2) < 1e-6."""
    n = 20_000
    out = sorted(v for v in noisy([0.0] * n, 2.0, 0.5, exact=exact))
    distance = 0.0
    for i, value in enumerate(out):
        cdf = float(mpmath.ncdf(value))
        distance = max(distance, (i + 1) / n - cdf, cdf - i / n)
    assert distance * math.sqrt(n) < 2.7


def test_outputs_are_on_the_grid_and_ignore_data_below_it() -> None:
    d, clip = 3000, 1.0
    grid = _core.choose_lattice(1.0, clip, d).grid
    steps = [(i * 7919 % 2001) - 1000 for i in range(d)]
    low = [(s - 0.375) * grid for s in steps]
    high = [(s + 0.375) * grid for s in steps]
    one, two = noisy(low, 1.0, clip, insecure_seed=9), noisy(high, 1.0, clip, insecure_seed=9)
    assert one == two
    assert all((v / grid).is_integer() for v in one)
    moved = noisy([(s + 1) * grid for s in steps], 1.0, clip, insecure_seed=9)
    assert sum(m - v == grid for m, v in zip(moved, one, strict=True)) > 0.99 * d


def test_without_noise_the_sum_is_only_scaled() -> None:
    assert noisy([1.0, -3.0, 0.1], 0.0, 1.0, 0.5) == array("f", [0.5, -1.5, 0.05])


def test_every_call_draws_new_noise() -> None:
    assert noisy([0.0] * 20, 1.0, 1.0) != noisy([0.0] * 20, 1.0, 1.0)  # by chance: 2^-300


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_sum_that_is_not_finite_is_refused_and_erased(wrong: float) -> None:
    buffer = array("f", [1.0, wrong, 2.0])
    with pytest.raises(PrivacyViolation, match=r"\[noise\] Expected a clipped sum that is finite"):
        _core.add_lattice_noise_for_testing(buffer, 1.0, 1.0)
    assert buffer == array("f", [0.0, 0.0, 0.0])


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scale_outside_its_domain_is_refused(scale: float) -> None:
    with pytest.raises(InvalidArgument, match=r"\[noise\] Expected scale"):
        noisy([1.0], 1.0, 1.0, scale)


def test_only_float32_buffers_that_can_be_written() -> None:
    for buffer in (array("d", [1.0]), bytes(8), memoryview(array("f", [1.0, 2.0, 3.0]))[::2]):
        with pytest.raises((InvalidArgument, BufferError)):
            _core.add_lattice_noise_for_testing(buffer, 1.0, 1.0)


def test_an_empty_buffer_is_fine() -> None:
    assert noisy([], 1.0, 1.0) == array("f")
