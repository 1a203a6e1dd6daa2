"""Batches, noise and charge of a training run come out of one plan: epochs, repeatable runs, exact noise, memory."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from charges import charged
from hushgrad import BatchMemoryManager, InsecureSeed, PrivacyEngine, report
from hushgrad.accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, epsilon
from hushgrad.errors import InvalidArgument, PrivacyViolation
from hushgrad.ledger import Ledger
from hushgrad.loader import Announced

RECORDS, BATCH, DELTA = 30, 8, 1e-5


def epoch_event(noise_multiplier: float) -> DpEvent:
    """One record more moves a shuffled epoch by the root of five clipping bounds (accounting/batch_law.h)."""
    event = GaussianDpEvent(math.nextafter(noise_multiplier / math.sqrt(5), 0.0))
    return charged(event, noise_multiplier, nn.Linear(1, 1), steps=4)


class Training:
    """One number a record: which records a batch held can be read off it."""

    def __init__(self, ledger: str | Path = ":memory:", *, shuffle: bool = True, **options: Any) -> None:
        self.engine = PrivacyEngine(ledger=ledger)
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.1)
        self.loader: DataLoader[Any] = DataLoader(TensorDataset(torch.arange(RECORDS)), batch_size=BATCH, shuffle=shuffle)
        options = {"noise_multiplier": 2.0, "max_grad_norm": 1.0, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=self.loader, **options)

    def step(self, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.module(x.float().unsqueeze(1) / RECORDS).square().mean().backward()
        self.optimizer.step()

    def epoch(self) -> Iterator[list[int]]:
        for (x,) in self.loader:
            self.step(x)
            yield x.tolist()

    def weights(self) -> list[float]:
        return nn.utils.parameters_to_vector(self.module.parameters()).tolist()


# Epochs in which every record comes once.


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_record_once_and_is_charged_once(shuffle: bool, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", shuffle=shuffle, poisson_sampling=False)
    assert len(training.loader) == 4
    orders = [sum(training.epoch(), []) for _ in range(3)]
    assert all(sorted(order) == list(range(RECORDS)) for order in orders)
    assert (orders[0] == list(range(RECORDS))) is not shuffle and (orders[0] == orders[1]) is not shuffle
    training.engine.finish()
    ledger = Ledger(tmp_path / "l.db")
    assert training.engine.steps == 12
    # In a fixed order a record more moves the first record of every batch into another: every step is charged.
    paid = [epoch_event(2.0)] * 3 if shuffle else [charged(GaussianDpEvent(1.0), 2.0, training.module)] * 12
    assert [step.event for step in ledger.steps()] == paid
    assert training.engine.get_epsilon(DELTA) == epsilon(SelfComposedDpEvent(paid[0], len(paid)), DELTA)[1]
    (run,) = ledger.runs()
    assert run.plan["sampling"] == ("shuffled" if shuffle else "sequential")


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_target_holds_without_sampling(shuffle: bool) -> None:
    engine, module = PrivacyEngine(ledger=":memory:"), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.arange(RECORDS)), batch_size=BATCH, shuffle=shuffle)
    with pytest.warns(UserWarning, match="poisson_sampling=False"):
        engine.make_private_with_epsilon(
            module=module, optimizer=optimizer, data_loader=loader, target_epsilon=2.0, target_delta=DELTA, epochs=2, max_grad_norm=1.0,
            poisson_sampling=False,
        )  # fmt: skip
    for _ in range(2):
        for (x,) in loader:
            optimizer.zero_grad()
            module(x.float().unsqueeze(1)).square().mean().backward()
            optimizer.step()
    engine.finish()
    assert 1.9 < engine.get_epsilon(DELTA) <= 2.0


def test_an_epoch_that_is_left_early_is_charged_in_full_and_the_next_again() -> None:
    training = Training(poisson_sampling=False)
    for _ in range(2):
        for (x,) in training.loader:
            training.step(x)
            break
    assert training.engine.steps == 2
    assert training.engine.get_epsilon(DELTA) == epsilon(SelfComposedDpEvent(epoch_event(2.0), 2), DELTA)[1]


def test_iterations_inside_of_each_other_are_charged_for_every_epoch_they_begin(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", poisson_sampling=False)
    for (outer,) in training.loader:
        training.step(outer)
        for (inner,) in training.loader:
            training.step(inner)
    assert training.engine.steps == 20
    # Each inner pass is an epoch, and cuts the outer one short: what follows belongs to another.
    assert len(Ledger(tmp_path / "l.db").steps()) == 8


def test_more_steps_than_an_epoch_has_are_refused() -> None:
    """A batch that is announced again, as no loader of ours does, would be a record counted twice."""
    training = Training(poisson_sampling=False)
    session = training.engine._sessions[0]
    batches = []
    for (x,) in training.loader:
        batches.append(x)
        training.step(x)
    session.begin_batch(Announced(len(batches[0]), 1))
    with pytest.raises(PrivacyViolation, match="at most 4 steps in an epoch"):
        training.step(batches[0])
    assert training.engine.steps == 4


def test_another_noise_multiplier_within_an_epoch_is_charged_as_a_further_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", poisson_sampling=False)
    for place, _ in enumerate(training.epoch()):
        if place == 1:
            training.engine.noise_multiplier = 1.0
    assert [s.event for s in Ledger(tmp_path / "l.db").steps()] == [epoch_event(2.0), epoch_event(1.0)]


@pytest.mark.parametrize("poisson", [True, False])
def test_virtual_batches_keep_the_charge(poisson: bool, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", poisson_sampling=poisson)
    for _ in range(2):
        with BatchMemoryManager(data_loader=training.loader, max_physical_batch_size=3, optimizer=training.optimizer) as loader:
            for (x,) in loader:
                assert len(x) <= 3
                training.step(x)
    assert training.engine.steps == 8
    training.engine.finish()  # steps that were reserved and not taken do not count
    assert len(Ledger(tmp_path / "l.db").steps()) == (8 if poisson else 2)


def test_not_sampling_says_what_it_costs() -> None:
    module = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.arange(RECORDS)), batch_size=BATCH, shuffle=True)
    with pytest.warns(UserWarning, match="poisson_sampling=False") as caught:
        PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=2.0, max_grad_norm=1.0, poisson_sampling=False
        )
    step = PoissonSampledDpEvent(BATCH / RECORDS, GaussianDpEvent(2.0))
    own = epsilon(SelfComposedDpEvent(epoch_event(2.0), 10), 1 / 300)[1]
    poisson = epsilon(SelfComposedDpEvent(step, 40), 1 / 300)[1]
    assert f"10 epochs cost epsilon {own:.3g} " in str(caught[0].message)
    assert f"would cost {poisson:.3g}. " in str(caught[0].message) and own > 1.5 * poisson


# Randomness.


def test_an_insecure_seed_repeats_the_run_and_is_shown(tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        training = Training(tmp_path / f"{number}.db", noise_generator=InsecureSeed(7))
        runs.append(([sorted(batch) for batch in training.epoch()], training.weights()))
    other = Training(noise_generator=InsecureSeed(8))
    assert runs[0] == runs[1] != ([sorted(batch) for batch in other.epoch()], other.weights())
    (run,) = Ledger(tmp_path / "0.db").runs()
    assert run.plan["random"] == "insecure-seed" and "7" not in json.dumps(run.plan["random"])
    document = report.build(Ledger(tmp_path / "0.db"))
    assert "insecure_randomness" in json.dumps(document)
    assert b"insecure randomness" in report.render(document)


def test_without_one_no_two_runs_are_alike() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        training = Training()
        list(training.epoch())
        weights.append(training.weights())
    assert weights[0] != weights[1]


@pytest.mark.parametrize("generator", [7, torch.Generator().manual_seed(1), "secret"])
def test_other_generators_are_refused(generator: Any) -> None:
    with pytest.raises(InvalidArgument, match="hushgrad.InsecureSeed"):
        Training(noise_generator=generator)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_an_insecure_seed_is_a_number(seed: Any) -> None:
    with pytest.raises(InvalidArgument, match="InsecureSeed"):
        InsecureSeed(seed)


def test_a_run_is_neither_pickled_nor_copied() -> None:
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(Training().engine._sessions[0].training)


# Noise.


@pytest.mark.parametrize("noise", ["lattice_gaussian", "exact_lattice_gaussian"])
def test_both_samplers_train_and_are_recorded(noise: str, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", noise=noise)
    assert len(list(training.epoch())) == 4
    (run,) = Ledger(tmp_path / "l.db").runs()
    assert run.plan["noise"] == noise


def test_an_unknown_noise_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="exact_lattice_gaussian"):
        Training(noise="gaussian")


MEMORY = """
import resource, sys, torch
from torch.utils.data import DataLoader, TensorDataset
from hushgrad import PrivacyEngine
torch.set_num_threads(1)
noise = float(sys.argv[1])
module = torch.nn.Linear(4000, 4000)  # 64 MB
optimizer = torch.optim.SGD(module.parameters(), 0.1)
loader = DataLoader(TensorDataset(torch.randn(4, 4000)), batch_size=4)
PrivacyEngine(ledger=":memory:").make_private(
    module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=noise, max_grad_norm=1.0)
for (x,) in loader:
    optimizer.zero_grad()
    module(x).square().mean().backward()
    optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_noise_takes_no_second_parameter_sized_buffer() -> None:
    def peak(noise: float) -> int:
        done = subprocess.run([sys.executable, "-c", MEMORY, str(noise)], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    without, with_noise = peak(0.0), peak(1.0)
    assert with_noise - without < 16 * 1024, f"KiB: {without} without noise, {with_noise} with it; the parameters are 65536"

