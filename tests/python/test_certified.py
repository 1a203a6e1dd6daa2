"""``sensitivity="certified"``: one sample at a time, clipped and summed in integers, exact noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hushgrad import BatchMemoryManager, PrivacyEngine, report
from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, epsilon
from hushgrad.errors import InvalidArgument, InvalidState, Unsupported
from hushgrad.ledger import Ledger

RECORDS, BATCH, CLIP = 24, 6, 0.5


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


class Training:
    def __init__(self, ledger: str | Path = ":memory:", *, data: Any = None, **options: Any) -> None:
        self.engine = PrivacyEngine(ledger=ledger)
        self.module = network()
        self.optimizer = torch.optim.SGD(self.module.parameters(), 1.0)
        torch.manual_seed(2)
        self.data = torch.randn(RECORDS, 4)
        self.loader: DataLoader[Any] = DataLoader(data or TensorDataset(self.data, torch.arange(RECORDS)), batch_size=BATCH)
        options = {"noise_multiplier": 1.0, "max_grad_norm": CLIP, "sensitivity": "certified", **options}
        self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=self.loader, **options)

    def step(self, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.module(x).square().mean().backward()
        self.optimizer.step()

    def weights(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()


def clipped(weights: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The naive twin: the clipped gradient of one row."""
    module = network()
    nn.utils.vector_to_parameters(weights, module.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(module(row[None]).square().mean(), list(module.parameters()))])
    return gradient * min(1.0, CLIP / float(gradient.norm()))


def test_steps_are_clipped_sums_of_the_logical_batch() -> None:
    training = Training(noise_multiplier=0.0)
    batch: list[torch.Tensor] = []
    before = training.weights()
    for x, _ in training.loader:
        assert len(x) <= 1
        batch.extend(x)
        steps = training.engine.steps
        training.step(x)
        if training.engine.steps == steps:
            continue
        expected = before - sum((clipped(before, row) for row in batch), torch.zeros_like(before)) / BATCH
        # Truncation: a step of 2^-24 C a coordinate and sample, and the clipping factor's 2^-10.
        assert torch.allclose(training.weights(), expected, rtol=2e-3, atol=1e-6)
        before, batch = training.weights(), []
    assert training.engine.steps == 4 and batch == []


def test_it_is_charged_and_labelled(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db")
    for x, _ in training.loader:
        training.step(x)
    training.engine.finish()
    ledger = Ledger(tmp_path / "l.db")
    event = PoissonSampledDpEvent(BATCH / RECORDS, GaussianDpEvent(1.0))
    assert [step.event for step in ledger.steps()] == [event] * 4
    assert training.engine.get_epsilon(1e-5) == epsilon(SelfComposedDpEvent(event, 4), 1e-5)[1]
    (run,) = ledger.runs()
    assert (run.plan["sensitivity"], run.plan["noise"]) == ("certified", "exact_lattice_gaussian")
    assert b"certified" in report.render(report.build(Ledger(tmp_path / "l.db")))


def test_empirical_is_labelled_too(tmp_path: Path) -> None:
    Training(tmp_path / "l.db", sensitivity="empirical")
    (run,) = Ledger(tmp_path / "l.db").runs()
    assert run.plan["sensitivity"] == "empirical"
    assert b"empirical" in report.render(report.build(Ledger(tmp_path / "l.db")))


class Strange(Dataset[Any]):
    """Every third record is not finite, or far too large."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Any:
        row = torch.full((4,), 0.1 * index)
        if index % 3 == 0:
            row[index % 4] = [math.nan, math.inf, -math.inf, 3e38][index % 4]
        return row, index


def test_strange_samples_stay_within_the_bound() -> None:
    training = Training(data=Strange(), noise_multiplier=0.0)
    samples, before = 0, training.weights()
    for x, _ in training.loader:
        steps = training.engine.steps
        training.step(x)
        samples += len(x)
        if training.engine.steps > steps:
            moved = float((training.weights() - before).norm()) * BATCH
            assert moved <= samples * CLIP * (1 + 1e-5)
            samples, before = 0, training.weights()
    assert training.engine.steps == 4


def test_noise_has_the_charged_deviation() -> None:
    module = nn.Linear(300, 100)
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    loader = DataLoader(TensorDataset(torch.zeros(2, 300)), batch_size=1)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=3.0, max_grad_norm=0.2, sensitivity="certified"
    )
    before = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    for (x,) in loader:
        optimizer.zero_grad()
        (module(x) * 0).mean().backward()
        optimizer.step()
        if engine.steps == 1:
            break
    moved = nn.utils.parameters_to_vector(module.parameters()).detach() - before
    # 30100 coordinates; the deviation of the estimate is 1 / sqrt(2 n). False alarm 1e-6.
    assert abs(float(moved.square().mean()) / 0.6**2 - 1) < 4.9 * math.sqrt(2 / moved.numel())


def test_batches_of_several_samples_are_refused() -> None:
    training = Training()
    next(iter(training.loader))
    with pytest.raises(InvalidState, match="at most one sample"):
        training.engine._sessions[0].training.begin_batch(2, 0)


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return RECORDS

    def __iter__(self) -> Any:
        return iter(Strange())


def test_what_is_not_proven_is_refused() -> None:
    for clipping in ("automatic", "adaptive", "per_layer"):
        with pytest.raises(InvalidArgument, match='clipping="flat"'):
            Training(clipping=clipping)
    with pytest.raises(Unsupported, match="IterableDataset"):
        Training(data=Stream())
    with pytest.raises(InvalidArgument, match='"certified"'):
        Training(sensitivity="proven")
    training = Training()
    with pytest.raises(InvalidState, match="one bound"):
        training.engine.max_grad_norm = 2.0


def test_virtual_batches_stay_batches_of_one() -> None:
    training = Training(noise_multiplier=0.0)
    with BatchMemoryManager(data_loader=training.loader, max_physical_batch_size=4, optimizer=training.optimizer) as loader:
        for x, _ in loader:
            assert len(x) <= 1
            training.step(x)
    assert training.engine.steps == 4


def test_a_batch_that_is_left_early_is_forgotten() -> None:
    training = Training(noise_multiplier=0.0)
    before = training.weights()
    while training.engine.steps == 0:
        for x, _ in training.loader:
            training.step(x)
            break  # most often in the middle of a logical batch
    # Only the batch of the last iteration counts: at most one sample.
    assert float((training.weights() - before).norm()) <= CLIP / BATCH * (1 + 1e-5)


class Tied(nn.Module):
    """One table for words and for outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.words(x)).mean(1))
        return out


class Frozen(nn.Module):
    """Layers in between that do not train, and one that no optimizer steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.GroupNorm(1, 5), nn.Linear(5, 1))
        self.layers[2].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def rows_of_numbers() -> torch.Tensor:
    return torch.randn(RECORDS, 4) * torch.logspace(-3, 3, RECORDS)[:, None]


KINDS: dict[str, Any] = {
    "frozen": (Frozen, rows_of_numbers, lambda m: [p for p in m.parameters() if p.requires_grad]),
    "head only": (network, rows_of_numbers, lambda m: list(m[2].parameters())),
    "groups": (network, rows_of_numbers, lambda m: [{"params": m[0].parameters(), "lr": 0.1}, {"params": m[2].parameters(), "weight_decay": 0.1}]),
    "tied": (Tied, lambda: torch.randint(6, (RECORDS, 3)), lambda m: list(m.parameters())),
    "bfloat16": (lambda: network().bfloat16(), lambda: rows_of_numbers().bfloat16(), lambda m: list(m.parameters())),
    "float64": (lambda: network().double(), lambda: rows_of_numbers().double(), lambda m: list(m.parameters())),
}


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_parameter_is_clipped_as_one_whole(kind: str, users: bool) -> None:
    """What a step applies is the sum over records (users) of their own clipped gradient, and one alone moves it by at most C."""
    make, rows, parameters_of = KINDS[kind]
    torch.manual_seed(3)
    module, data, owners = make(), rows(), [i // 2 for i in range(RECORDS)]
    optimizer = torch.optim.SGD(parameters_of(module), lr=0.1)
    private = [p for group in optimizer.param_groups for p in group["params"]]
    loader: DataLoader[Any] = DataLoader(TensorDataset(data, torch.arange(RECORDS)), batch_size=BATCH // 2)
    options = {"sampling": "users", "user_ids": owners, "max_records_per_user": 2} if users else {}

    def own(records: list[int]) -> torch.Tensor:
        loss = module(data[records]).float().square().mean()
        return torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, private)])

    everyone = [[2 * i, 2 * i + 1] for i in range(RECORDS // 2)] if users else [[i] for i in range(RECORDS)]
    first = {records[0]: own(records) for records in everyone}  # at the first weights
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=CLIP, sensitivity="certified", **options
    )
    before = [p.detach().clone() for p in private]
    bits = 2**-7 if kind == "bfloat16" else 0.0  # of what is released, after noise
    for _ in range(4):
        batch: list[int] = []
        for x, numbers in loader:
            optimizer.zero_grad()
            module(x).float().square().mean().backward()
            steps = engine.steps
            batch += numbers.tolist()
            optimizer.step()
            if engine.steps > steps:
                break
        applied = torch.cat([p.grad.double().flatten() for p in private if p.grad is not None]) * (BATCH // 2)
        own_sums = [first[n] for n in sorted(batch) if n in first and (not users or n % 2 == 0)]
        expected = sum((g * min(1.0, CLIP / float(g.norm())) for g in own_sums), torch.zeros_like(applied))
        assert torch.allclose(applied, expected, rtol=2e-3 + bits, atol=1e-5 + bits * CLIP)
        assert float(applied.norm()) <= len(own_sums) * CLIP * (1 + 1e-6 + bits)
        with torch.no_grad():
            for p, value in zip(private, before):
                p.copy_(value)
    trained = {id(p) for p in private}
    assert all(p.grad is None for p in module.parameters() if id(p) not in trained)
