"""Calibrations: on the safe side of the target, and close to it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hushgrad.accounting import GaussianDpEvent, GroupDpEvent, LaplaceDpEvent, PoissonSampledDpEvent, epsilon
from hushgrad.accounting import calibrate_noise, calibration
from hushgrad.accounting.calibration import (
    calibrate,
    calibrate_batch_size,
    calibrate_clipping_norm,
    calibrate_sampling_rate,
    calibrate_steps,
    training,
)
from hushgrad.accounting.filter import GaussianFilter, Odometer
from hushgrad.errors import BudgetExceeded, InvalidArgument, Unsupported

TARGET = {"target_epsilon": 2.0, "target_delta": 1e-6}


def test_each_parameter() -> None:
    steps = calibrate_steps(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), **TARGET)
    assert steps.epsilon <= 2 < epsilon(training(1.0, 0.01, int(steps.value) + 1), 1e-6)[1]
    rate = calibrate_sampling_rate(noise_multiplier=1.0, steps=1000, **TARGET)
    assert rate.epsilon <= 2 < epsilon(training(1.0, rate.value * 1.005, 1000), 1e-6)[1]
    batch = calibrate_batch_size(noise_multiplier=1.0, dataset_size=50_000, steps=1000, **TARGET)
    assert batch.value == int(batch.value) and batch.epsilon <= 2
    assert batch.value == pytest.approx(rate.value * 50_000, abs=1)
    norm = calibrate_clipping_norm(noise_stddev=3.0, sampling_rate=0.01, steps=1000, **TARGET)
    assert norm.epsilon <= 2 < epsilon(training(3.0 / (norm.value * 1.005), 0.01, 1000), 1e-6)[1]


# An upper bound need not fall where the truth falls: a search may end a little beyond the target.
def test_what_a_search_found_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = calibrate_sampling_rate(noise_multiplier=1.0, steps=1000, **TARGET)
    noise = calibrate_noise(sampling_rate=0.01, steps=1000, **TARGET)
    beyond = replace(rate, value=rate.value * 1.01)
    monkeypatch.setattr(calibration, "calibrate_sampling_rate", lambda **_: beyond)
    monkeypatch.setattr(calibration, "calibrate_noise", lambda **_: noise * 0.99)
    batch = calibrate_batch_size(noise_multiplier=1.0, dataset_size=50_000, steps=1000, **TARGET)
    assert batch.epsilon <= 2 and batch.value == pytest.approx(rate.value * 50_000, rel=0.005)
    norm = calibrate_clipping_norm(noise_stddev=3.0, sampling_rate=0.01, steps=1000, **TARGET)
    assert norm.epsilon <= 2 and norm.value == pytest.approx(3.0 / noise, rel=0.005)


def test_any_event_and_adjacency() -> None:
    found = calibrate(
        LaplaceDpEvent, lowest=0.9, highest=1.2, more_is_private=True, adjacency="replace_one", **TARGET
    )
    assert found.epsilon <= 2 and found.value == pytest.approx(1.0, rel=0.01)
    group = calibrate(
        lambda z: GroupDpEvent(2, GaussianDpEvent(z)), lowest=0.1, highest=1000, more_is_private=True, **TARGET
    )
    assert 0.998 * 2 <= group.epsilon <= 2
    with pytest.raises(InvalidArgument):
        calibrate(GaussianDpEvent, lowest=0.01, highest=0.1, more_is_private=True, **TARGET)


def test_filter_admits_no_more_than_its_target() -> None:
    budget = GaussianFilter(1.0, 1e-6)
    admitted = []
    for noise in (20.0, 30.0, 10.0, 7.0, 50.0, 6.0, 5.0, 5.0, 5.0):
        try:
            budget.admit(GaussianDpEvent(noise))
        except BudgetExceeded:
            continue
        admitted.append(noise)
    assert 0 < len(admitted) < 9
    together = 1 / math.sqrt(sum(noise**-2 for noise in admitted))
    assert epsilon(GaussianDpEvent(together), 1e-6)[1] <= 1
    rest = budget.remaining
    with pytest.raises(BudgetExceeded):
        budget.admit(GaussianDpEvent(0.0))
    with pytest.raises(Unsupported):
        budget.admit(LaplaceDpEvent(1.0))
    assert budget.remaining == rest
    budget.admit(GaussianDpEvent(rest**-0.5 * (1 + 1e-9)))


@pytest.mark.parametrize("target", [(1e-200, 1e-200), (1e-300, 1e-170), (1e-300, 1e-5)])
def test_filter_refuses_targets_that_no_number_meets(target: tuple[float, float]) -> None:
    try:
        budget = GaussianFilter(*target)
    except InvalidArgument:
        return
    assert epsilon(GaussianDpEvent(budget.remaining**-0.5 * (1 + 1e-9)), target[1])[1] <= target[0]


def test_odometer_reads_the_composition() -> None:
    odometer = Odometer(1e-6)
    assert odometer.epsilon() == (0, 0)
    step = PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0))
    for _ in range(3):
        odometer.add(step, 100)
    assert odometer.epsilon() == epsilon(training(1.0, 0.01, 300), 1e-6)
    assert odometer.delta(1.0)[1] < 1
