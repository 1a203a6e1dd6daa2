"""Opacus' accountants by hushgrad: never below the published values, close to Opacus' own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from hushgrad import accounting  # noqa: E402
from hushgrad.compat.opacus.accountants import (  # noqa: E402
    GaussianAccountant,
    IAccountant,
    PRVAccountant,
    RDPAccountant,
    create_accountant,
    register_accountant,
)
from hushgrad.compat.opacus.accountants.utils import get_noise_multiplier  # noqa: E402
from hushgrad.errors import InvalidArgument  # noqa: E402

DELTA = 1e-5
KINDS = [PRVAccountant, RDPAccountant, GaussianAccountant]


@pytest.mark.parametrize("kind", KINDS)
def test_history_is_runs_of_equal_steps(kind: type[Any]) -> None:
    accountant = kind()
    assert len(accountant) == 0 and accountant.get_epsilon(DELTA) == 0
    for noise in (1.5, 1.5, 0.8, 0.8, 0.8, 1.5):
        accountant.step(noise_multiplier=noise, sample_rate=0.01)
    assert accountant.history == [(1.5, 0.01, 2), (0.8, 0.01, 3), (1.5, 0.01, 1)]
    assert len(accountant) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_state_comes_back_and_another_mechanisms_does_not(kind: type[Any]) -> None:
    accountant = kind()
    accountant.step(noise_multiplier=1.0, sample_rate=0.1)
    state = accountant.state_dict()
    assert dict(state) == {"history": [(1.0, 0.1, 1)], "mechanism": kind.mechanism()}
    again = kind()
    again.load_state_dict(state)
    accountant.step(noise_multiplier=1.0, sample_rate=0.1)
    assert again.history == [(1.0, 0.1, 1)]
    for bad in ({}, None, {"history": []}, {**state, "mechanism": "other"}):
        with pytest.raises(ValueError):
            again.load_state_dict(bad)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.1, 256 / 60000, 14062), (0.7, 0.02, 500), (4.0, 0.5, 100), (1.0, 1.0, 3)]
)
def test_epsilon_is_an_upper_bound_close_to_opacus(noise: float, rate: float, steps: int) -> None:
    opacus = pytest.importorskip("opacus.accountants")
    event = accounting.SelfComposedDpEvent(
        accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise)), steps
    )
    lower = accounting.epsilon(event, DELTA)[0]
    for name in ("prv", "rdp", "gdp"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, ours = getattr(opacus, "create_accountant")(name), create_accountant(name)
        theirs.history = [(noise, rate, steps)]
        ours.history = [(noise, rate, steps)]
        epsilon = ours.get_epsilon(delta=DELTA)
        assert epsilon >= lower
        if name == "prv":
            assert epsilon <= theirs.get_epsilon(delta=DELTA) + 1e-6
        if name == "rdp":
            assert epsilon <= theirs.get_epsilon(delta=DELTA) * 1.001


def test_gdp_does_not_take_over_the_approximation() -> None:
    # Opacus' central limit number at these values lies below the proven lower end: 17 % of the budget would go uncounted.
    accountant = GaussianAccountant()
    accountant.history = [(0.6, 0.01, 100)]
    event = accounting.SelfComposedDpEvent(accounting.PoissonSampledDpEvent(0.01, accounting.GaussianDpEvent(0.6)), 100)
    lower = accounting.epsilon(event, DELTA)[0]
    assert accountant.get_epsilon(DELTA) >= lower
    gdp = pytest.importorskip("opacus.accountants.analysis.gdp")
    assert gdp.compute_eps_poisson(steps=100, noise_multiplier=0.6, sample_rate=0.01, delta=DELTA) < lower


def test_gdp_without_poisson_sampling_has_no_amplification() -> None:
    accountant = GaussianAccountant()
    accountant.history = [(2.0, 0.01, 4)]
    event = accounting.SelfComposedDpEvent(accounting.GaussianDpEvent(1.0), 4)
    assert accountant.get_epsilon(DELTA, poisson=False) == accounting.epsilon(event, DELTA)[1]


def test_privacy_spent_is_a_pair() -> None:
    accountant = RDPAccountant()
    accountant.step(noise_multiplier=1.0, sample_rate=0.01)
    epsilon, order = accountant.get_privacy_spent(delta=DELTA, alphas=[2, 3])
    assert epsilon == accountant.get_epsilon(DELTA) and math.isnan(order)


@pytest.mark.parametrize("accountant", ["prv", "rdp", "gdp"])
@pytest.mark.parametrize("length", [{"steps": 1000}, {"epochs": 10}])
def test_noise_meets_the_target_and_little_more(accountant: str, length: dict[str, int]) -> None:
    noise = get_noise_multiplier(
        target_epsilon=3.0, target_delta=DELTA, sample_rate=0.01, accountant=accountant, **length
    )
    found = create_accountant(accountant)
    found.history = [(noise, 0.01, 1000)]
    assert 2.98 < found.get_epsilon(DELTA) <= 3.0


def test_noise_is_close_to_opacus() -> None:
    utils = pytest.importorskip("opacus.accountants.utils")
    arguments = {"target_epsilon": 2.0, "target_delta": DELTA, "sample_rate": 0.02, "steps": 300}
    for accountant in ("prv", "rdp"):
        ours = get_noise_multiplier(**arguments, accountant=accountant)
        assert ours == pytest.approx(utils.get_noise_multiplier(**arguments, accountant=accountant), rel=0.02)


@pytest.mark.parametrize("length", [{}, {"steps": 1, "epochs": 1}])
def test_noise_needs_one_length(length: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either steps or epochs"):
        get_noise_multiplier(target_epsilon=1.0, target_delta=DELTA, sample_rate=0.1, **length)


def test_impossible_targets_are_refused() -> None:
    for accountant in ("prv", "rdp"):
        with pytest.raises(ValueError):
            get_noise_multiplier(
                target_epsilon=1e-12, target_delta=DELTA, sample_rate=1.0, steps=10**9, accountant=accountant
            )


def test_own_accountants_are_used_by_name() -> None:
    class Fixed(IAccountant):
        def __init__(self) -> None:
            super().__init__()

        def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
            self.history.append((noise_multiplier, sample_rate, 1))

        def get_epsilon(self, delta: float, *args: Any, **kwargs: Any) -> float:
            return float(len(self.history))

        def __len__(self) -> int:
            return len(self.history)

        @classmethod
        def mechanism(cls) -> str:
            return "fixed-for-this-test"

    register_accountant("fixed-for-this-test", Fixed, force=True)
    assert isinstance(create_accountant("fixed-for-this-test"), Fixed)
    with pytest.raises(InvalidArgument, match="force=True"):
        register_accountant("fixed-for-this-test", Fixed)
    with pytest.raises(ValueError, match="prv"):
        create_accountant("nothing")

    class Optimizer:
        noise_multiplier, accumulated_iterations = 2.0, 1

    accountant = Fixed()
    accountant.get_optimizer_hook_fn(sample_rate=0.1)(Optimizer())
    assert accountant.history == [(2.0, 0.1, 1)]
