"""Virtual batches: several physical batches are one logical batch, for clipping, for noise and for the ledger."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from hushgrad import BatchMemoryManager, PrivacyEngine
from hushgrad.errors import InvalidArgument, InvalidState, Unsupported

RECORDS, BATCH = 60, 20


class Training:
    def __init__(self, *, records: int = RECORDS, batch: int = BATCH, workers: int = 0, **options: Any) -> None:
        torch.manual_seed(0)
        self.engine = PrivacyEngine(ledger=":memory:")
        self.module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.1)
        x = torch.randn(records, 4)
        self.data = x
        self.loader: DataLoader[Any] = DataLoader(TensorDataset(x, torch.arange(records)), batch_size=batch, num_workers=workers)
        options = {"noise_multiplier": 0.0, "max_grad_norm": 0.5, **options}
        self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=self.loader, **options)

    def physical(self, limit: int) -> BatchMemoryManager:
        return BatchMemoryManager(data_loader=self.loader, max_physical_batch_size=limit, optimizer=self.optimizer)

    def step(self, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.module(x).square().mean().backward()
        self.optimizer.step()

    def weights(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()


def clipped_step(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The naive twin: one step of clipped SGD on the rows of x."""
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    nn.utils.vector_to_parameters(weights, module.parameters())
    total = torch.zeros_like(weights)
    for row in x:
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(module(row).square().sum(), list(module.parameters()))])
        total += gradient * min(1.0, 0.5 / float(gradient.norm()))
    return weights - 0.1 * total / BATCH


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_physical_batches_are_one_logical_batch(limit: int, workers: int) -> None:
    training = Training(workers=workers)
    for epoch in range(2):
        with training.physical(limit) as loader:
            rows: list[torch.Tensor] = []
            before, physical = training.weights(), 0
            expected = len(loader)
            for x, index in loader:
                assert 0 < len(x) <= limit
                rows.append(training.data[index])
                steps = training.engine.steps
                training.step(x)
                physical += 1
                if training.engine.steps == steps:
                    assert torch.equal(before, training.weights())
                    assert all(p.grad is None for p in training.module.parameters())
                    continue
                torch.testing.assert_close(training.weights(), clipped_step(before, torch.cat(rows)), rtol=1e-5, atol=1e-7)
                rows, before = [], training.weights()
            assert rows == []
            assert physical == expected
        assert training.engine.steps == 3 * (epoch + 1)


def test_one_charge_and_one_noise_a_logical_batch() -> None:
    training = Training(noise_multiplier=50.0, max_grad_norm=1.0, batch=30)
    squares = []
    for _ in range(150):
        with training.physical(8) as loader:
            for x, _ in loader:
                steps = training.engine.steps
                training.step(x)
                if training.engine.steps > steps:
                    squares += [float(p.grad.square().sum()) for p in training.module.parameters() if p.grad is not None]
    assert training.engine.steps == 300
    # 300 draws of 19 coordinates at 50 / 30. Noise on each physical batch would be twice as much. Standard error 0.0094.
    assert math.sqrt(sum(squares) / (300 * 19)) == pytest.approx(50 / 30, rel=6 * 0.0094)


def test_an_early_end_releases_nothing_and_the_next_epoch_is_whole() -> None:
    training = Training()
    before = training.weights()
    with training.physical(4) as loader:
        for step, (x, _) in enumerate(loader):
            training.step(x)
            if step == 1:
                break
    # Two pieces of at most 4 are not a batch of 20: fewer than 9 records come with probability 1e-4, then a step is right.
    if training.engine.steps == 0:
        assert torch.equal(before, training.weights())
    before, done = training.weights(), training.engine.steps
    with training.physical(4) as loader:
        rows: list[torch.Tensor] = []
        for x, index in loader:
            rows.append(training.data[index])
            steps = training.engine.steps
            training.step(x)
            if training.engine.steps > steps:
                # Nothing of the batch that was left is in this one.
                torch.testing.assert_close(training.weights(), clipped_step(before, torch.cat(rows)), rtol=1e-5, atol=1e-7)
                rows, before = [], training.weights()
    assert training.engine.steps == done + 3


def test_an_early_end_inside_of_one_manager() -> None:
    training = Training()
    with training.physical(4) as loader:
        for x, _ in loader:
            training.step(x)
            break
        done, before, rows = training.engine.steps, training.weights(), []
        for x, index in loader:
            rows.append(training.data[index])
            steps = training.engine.steps
            training.step(x)
            if training.engine.steps > steps:
                torch.testing.assert_close(training.weights(), clipped_step(before, torch.cat(rows)), rtol=1e-5, atol=1e-7)
                rows, before = [], training.weights()
    assert training.engine.steps == done + 3


def test_the_plain_loader_works_after_an_early_end() -> None:
    training = Training()
    with training.physical(4) as loader:
        for x, _ in loader:
            training.step(x)
            break
    before, done = training.weights(), training.engine.steps
    for x, index in training.loader:
        training.step(x)
        torch.testing.assert_close(training.weights(), clipped_step(before, training.data[index]), rtol=1e-5, atol=1e-7)
        before = training.weights()
    assert training.engine.steps == done + 3


def test_a_piece_without_a_step_stops_the_batch() -> None:
    training = Training()
    with training.physical(4) as loader, pytest.raises(InvalidState):
        for x, _ in loader:
            training.module(x).square().mean().backward()
    assert training.engine.steps == 0


def test_empty_logical_batches_are_steps() -> None:
    # 60 batches at a rate of 1/60: 22 empty ones are expected, none with probability below 1e-11.
    training = Training(batch=1, noise_multiplier=1.0)
    with training.physical(2) as loader:
        sizes = []
        for x, _ in loader:
            sizes.append(len(x))
            training.step(x)
    assert 0 in sizes
    assert training.engine.steps == 60


def test_length_is_exact_every_epoch() -> None:
    training = Training()
    with training.physical(3) as loader:
        for _ in range(3):
            announced = len(loader)
            physical = 0
            for physical, _ in enumerate(loader, start=1):
                assert len(loader) == announced
            assert physical == announced


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, None])
def test_bad_limits_are_refused(limit: Any) -> None:
    with pytest.raises(InvalidArgument, match="max_physical_batch_size"):
        Training().physical(limit)


def test_an_optimizer_that_is_not_private_is_refused() -> None:
    training = Training()
    other = torch.optim.SGD(training.module.parameters(), 0.1)
    with pytest.raises(InvalidArgument, match="make_private"):
        BatchMemoryManager(data_loader=training.loader, max_physical_batch_size=4, optimizer=other)


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Any:
        return iter(torch.zeros(10, 4))


def test_streams_have_no_virtual_batches() -> None:
    training = Training()
    with pytest.raises(Unsupported, match="IterableDataset"):
        BatchMemoryManager(data_loader=DataLoader(Stream()), max_physical_batch_size=2, optimizer=training.optimizer)
