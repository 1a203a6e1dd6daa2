"""Poisson batches as Python sees them: exact batch sizes, independence, refusals."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import pytest

from hushgrad import _core
from hushgrad.errors import InvalidArgument

FALSE_ALARM = 1e-6  # a statistical test below fails on a correct program once in a million runs
NORMAL_LIMIT = 4.892  # |z| of a standard normal passes it with that probability

SAMPLERS: dict[str, Callable[..., Any]] = {
    "poisson by record": lambda **seed: _core.PoissonSampler(200, Fraction(1, 2), **seed),
    "poisson by distance": lambda **seed: _core.PoissonSampler(200_000, Fraction(1, 1000), **seed),
    "truncated": lambda **seed: _core.TruncatedPoissonSampler(200, Fraction(1, 2), 90, **seed),
    "fixed size": lambda **seed: _core.FixedSizeSampler(200, 100, **seed),
    "shuffled": lambda **seed: _core.ShuffledSampler(200, 100, **seed),
    "random allocation": lambda **seed: _core.RandomAllocationSampler(200, 2, **seed),
    "users": lambda **seed: _core.UserSampler(list(range(200)), 1, Fraction(1, 2), **seed),
}


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
    population, draws = 50, 20_000
    sampler = _core.PoissonSampler(population, Fraction(7, 100))
    counts = [0] * (population + 1)
    for _ in range(draws):
        counts[len(sampler.draw())] += 1
    q = mpmath.mpf(7) / 100
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
    assert _core.PoissonSampler(1000, 2.0**-62).draw() == []  # otherwise with probability 2^-52


def test_batches_are_ascending_indices() -> None:
    batch = _core.PoissonSampler(10_000, 0.3).draw()
    assert isinstance(batch, list) and all(type(i) is int for i in batch)
    assert batch == sorted(set(batch)) and 0 <= batch[0] and batch[-1] < 10_000


@pytest.mark.parametrize(
    ("population", "rate"),
    [(0, 0.5), (-3, 0.5), (10, 0.0), (10, -0.1), (10, 1.1), (10, float("nan")), (10, float("inf")), (10, 2.0**-63), (10, Fraction(1, 2**63)), (10, "half")],
)
def test_refuses(population: int, rate: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"\[(poisson|sampling_rate)\] Expected "):
        _core.PoissonSampler(population, rate)


def test_reports_what_is_to_be_charged() -> None:
    sampler = _core.PoissonSampler(10, Fraction(1, 3))
    assert (sampler.population, sampler.sampling_rate, sampler.insecure) == (10, Fraction(1, 3), False)
    charged = Fraction(sampler.charged_rate)
    assert charged >= Fraction(1, 3) > Fraction(math.nextafter(sampler.charged_rate, 0.0))
    assert Fraction(0.1) - Fraction(1, 2**62) < _core.PoissonSampler(10, 0.1).sampling_rate <= Fraction(0.1)


@pytest.mark.parametrize(("size", "batch"), [(n, b) for n in (1, 93, 99, 105, 117, 1000, 60_000) for b in (1, 2, 32) if b <= n])
def test_epochs_lose_no_step_to_rounding(size: int, batch: int) -> None:
    """In floating point 1 / (1 / n) falls below n for 93, 99, 105, ..."""
    assert _core.PoissonSampler(size, Fraction(batch, size)).steps_per_epoch == -(-size // batch)


def test_a_thousand_million_records_take_no_memory_of_their_own() -> None:
    sampler = _core.PoissonSampler(10**9, Fraction(200, 10**9))
    sampler.draw()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    sizes = [len(sampler.draw()) for _ in range(50)]
    assert abs(sum(sizes) - 10_000) < NORMAL_LIMIT * 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
    fixed = _core.FixedSizeSampler(10**9, 200).draw()
    assert len(set(fixed)) == 200 and 0 <= min(fixed) and max(fixed) < 10**9


def test_truncated_poisson_never_passes_its_limit_and_else_is_poisson() -> None:
    sampler = _core.TruncatedPoissonSampler(100, Fraction(1, 10), 12)
    sizes = [len(sampler.draw()) for _ in range(20_000)]
    assert max(sizes) == 12
    q = mpmath.mpf(1) / 10
    masses = [mpmath.binomial(100, k) * q**k * (1 - q) ** (100 - k) for k in range(12)]
    masses.append(1 - sum(masses))
    assert chi_square_p([sizes.count(k) for k in range(13)], masses, len(sizes)) > FALSE_ALARM


def test_fixed_size_takes_every_record_equally_often() -> None:
    sampler = _core.FixedSizeSampler(10, 3)
    counts = [0] * 10
    for _ in range(10_000):
        batch = sampler.draw()
        assert len(set(batch)) == 3
        for record in batch:
            counts[record] += 1
    # Within a batch counts are negatively correlated: the statistic is chi-square(9) times (1 - 3/10) * 10/9 < 1.
    assert chi_square_p(counts, [mpmath.mpf(1) / 10] * 10, 30_000) > FALSE_ALARM


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_record_once(shuffle: bool) -> None:
    sampler = _core.ShuffledSampler(23, 5, shuffle)
    assert sampler.steps_per_epoch == 5
    orders = []
    for epoch in (1, 2, 3):
        batches = [sampler.draw() for _ in range(5)]
        assert [len(b) for b in batches] == [5, 5, 5, 5, 3]
        assert sampler.epoch == epoch
        orders.append(sum(batches, []))
        assert sorted(orders[-1]) == list(range(23))
    assert (orders[0] == orders[1]) is not shuffle  # by chance: 1 / 23!
    sampler.draw()
    sampler.begin_epoch()
    assert sampler.epoch == 5 and sorted(sum((sampler.draw() for _ in range(5)), [])) == list(range(23))


def test_random_allocation_puts_every_record_into_as_many_steps_as_stated() -> None:
    sampler = _core.RandomAllocationSampler(50, 8, 2)
    assert sampler.expected_batch_size == 12.5
    together = [0, 0, 0, 0]  # of records 0 and 1 in step 0
    for _ in range(10_000):
        epoch = [set(sampler.draw()) for _ in range(8)]
        assert sum(map(len, epoch)) == 100
        together[2 * (0 in epoch[0]) + (1 in epoch[0])] += 1
    q = mpmath.mpf(1) / 4
    assert chi_square_p(together, [(1 - q) ** 2, q * (1 - q), q * (1 - q), q * q], 10_000) > FALSE_ALARM


def test_users_come_whole_and_bounded() -> None:
    owners = [7, 7, 7, 7, 1, 1, 9]
    sampler = _core.UserSampler(owners, 2, Fraction(1, 2))
    assert (sampler.users, sampler.steps_per_epoch, sampler.expected_batch_size) == (3, 2, 1.5)
    chosen = [0, 0, 0]
    for _ in range(5_000):
        records, sizes = sampler.draw()
        assert len(records) == sum(sizes) and max(sizes, default=0) <= 2
        for user, owner in enumerate((1, 7, 9)):
            chosen[user] += any(owners[r] == owner for r in records)
        assert {owners[r] for r in records if owners[r] == 1} == set() or {4, 5} <= set(records)
    assert all(abs(c - 2500) < NORMAL_LIMIT * math.sqrt(1250) for c in chosen)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_insecure_seed_repeats_and_says_so(kind: str) -> None:
    make = SAMPLERS[kind]
    one, same, other = (make(insecure_seed=seed) for seed in (1, 1, 2))
    assert one.insecure and not make().insecure
    first = one.draw()
    assert first == same.draw()
    assert first != other.draw()  # by chance: less than 2^-190


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_forked_worker_does_not_repeat_the_parents_batches(kind: str) -> None:
    """Real processes. What they draw next differs from the parent's next epoch and from each other's."""
    sampler = SAMPLERS[kind]()
    sampler.draw()
    if hasattr(sampler, "epoch"):
        sampler.draw()  # ends the epoch, which was fixed before the fork
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=lambda: queue.put(sampler.draw())) for _ in range(3)]
    for child in children:
        child.start()
    batches = [queue.get() for _ in children]
    for child in children:
        child.join()
    batches.append(sampler.draw())
    assert len({repr(batch) for batch in batches}) == 4


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_is_neither_pickled_nor_copied(kind: str) -> None:
    """A copy would repeat the stream: nothing of a generator gets into a checkpoint or a spawned process."""
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(SAMPLERS[kind]())


def test_random_bytes() -> None:
    assert _core.random_bytes(0) == b""
    assert len(_core.random_bytes(5000)) == 5000
    assert _core.random_bytes(32) != _core.random_bytes(32)
    with pytest.raises(InvalidArgument):
        _core.random_bytes(-1)


BLOCKS = """
import multiprocessing, os, sys
from hushgrad import _core

def blocks(_=None):
    return b"".join(_core.random_bytes(16 * 1000) for _ in range(25))

if __name__ == "__main__":
    pieces = [blocks(), blocks()]
    for method in ("fork", "spawn"):  # ranks of a job, workers of a loader
        with multiprocessing.get_context(method).Pool(2) as pool:
            pieces += pool.map(blocks, range(14), chunksize=1)
    reader, writer = os.pipe()
    for _ in range(10):
        if os.fork() == 0:
            os.close(reader)
            piece = blocks()
            while piece:
                piece = piece[os.write(writer, piece):]
            os._exit(0)
        left = 16 * 25000
        while left:
            piece = os.read(reader, left)
            left -= len(piece)
            pieces.append(piece)
        os.wait()
    stream = b"".join(pieces)
    count = len(stream) // 16
    different = len({stream[i : i + 16] for i in range(0, len(stream), 16)})
    print(count, different)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_million_blocks_over_forks_and_workers_are_all_different(tmp_path: Path) -> None:
    """Blocks of 128 bits: two of a million are alike with probability 10^-27."""
    script = tmp_path / "blocks.py"
    script.write_text(BLOCKS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    count, different = map(int, done.stdout.split())
    assert count == different == 1_000_000
