"""The private loader: Poisson batches from the secure generator through the user's own DataLoader."""

from __future__ import annotations

import math
from collections import Counter, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy import stats
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from hushgrad import PrivacyEngine
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.loader import describe_loader, rows_of, steps_per_epoch

Pair = namedtuple("Pair", "features label")


def private(loader: DataLoader[Any], **options: Any) -> DataLoader[Any]:
    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    options = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, **options}
    PrivacyEngine(ledger=":memory:").make_private(module=module, optimizer=optimizer, data_loader=loader, **options)
    return loader


def numbers(records: int) -> TensorDataset:
    return TensorDataset(torch.arange(records))


class Records(Dataset[Any]):
    def __init__(self, of: Any, records: int = 20) -> None:
        self.of, self.records = of, records

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, index: int) -> Any:
        return self.of(index)


def test_batch_sizes_are_binomial() -> None:
    loader = private(DataLoader(numbers(50), batch_size=10))
    sizes = Counter(len(x) for _ in range(400) for (x,) in loader)
    total = sum(sizes.values())
    assert total == 2000
    bins = [range(0, 6), *([k] for k in range(6, 15)), range(15, 51)]
    observed = [sum(sizes[k] for k in b) for b in bins]
    expected = [total * sum(stats.binom.pmf(k, 50, 0.2) for k in b) for b in bins]
    # False alarm once in 10^7 runs. Batches of constant size, or of a rate off by a tenth, fail by far.
    assert stats.chisquare(observed, expected).pvalue > 1e-7


def test_records_are_drawn_alike_and_independently() -> None:
    loader = private(DataLoader(numbers(30), batch_size=6, shuffle=True))
    drawn = []
    for _ in range(400):
        for (x,) in loader:
            assert len(set(x.tolist())) == len(x)
            drawn.append(torch.zeros(30).index_fill_(0, x, 1))
    included = torch.stack(drawn).double()  # [2000, 30]
    steps = len(drawn)
    deviation = math.sqrt(0.2 * 0.8 / steps)
    # 30 records, 435 pairs and 900 pairs of neighbouring steps at 6.5 standard errors: a false alarm of about 1e-7.
    assert float((included.mean(0) - 0.2).abs().max()) < 6.5 * deviation
    correlation = torch.corrcoef(included.T) - torch.eye(30, dtype=torch.float64)
    assert float(correlation.abs().max()) < 6.5 / math.sqrt(steps)
    centred = (included - 0.2) / 0.4
    assert float((centred[1:].T @ centred[:-1] / (steps - 1)).abs().max()) < 6.5 / math.sqrt(steps)


def test_the_seed_of_torch_does_not_choose_the_batches() -> None:
    epochs = []
    for _ in range(2):
        torch.manual_seed(99)
        loader = private(DataLoader(numbers(64), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)))
        epochs.append([x.tolist() for (x,) in loader])
    assert epochs[0] != epochs[1]


def test_steps_per_epoch_lose_nothing_to_rounding() -> None:
    # In floating point 1 / (1 / n) falls below n for 93, 99, 105, ...
    for n in range(1, 2001):
        assert steps_per_epoch(n, 1) == n
        assert steps_per_epoch(n, n) == 1
        for b in (2, 7, 32):
            assert (steps_per_epoch(n, b) - 1) * b < n <= steps_per_epoch(n, b) * b


@pytest.mark.parametrize(("records", "batch", "steps"), [(64, 16, 4), (93, 1, 93), (65, 16, 5), (10, 100, 1), (1, 1, 1)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_length_is_the_number_of_batches(records: int, batch: int, steps: int, drop_last: bool) -> None:
    loader = private(DataLoader(numbers(records), batch_size=batch, drop_last=drop_last))
    assert len(loader) == steps
    for _ in range(2):
        assert sum(1 for _ in loader) == steps


def test_a_batch_larger_than_the_data_set_is_all_of_it() -> None:
    loader = private(DataLoader(numbers(5), batch_size=100))
    assert [x.tolist() for (x,) in loader] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_early_ends(workers: int) -> None:
    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.randn(40, 1)), batch_size=8, num_workers=workers)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    for stop in (2, 5):  # workers run ahead of a loop that ends early; the next epoch must know its own sizes
        for step, (x,) in enumerate(loader, start=1):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()  # refuses a batch of another size than announced
            if step == stop:
                break
    assert engine.steps == 7


EMPTY: list[tuple[Any, Any]] = [
    (lambda i: (torch.randn(3, 4), i), lambda b: (b[0].shape, b[1].shape) == ((0, 3, 4), (0,))),
    (lambda i: {"x": torch.randn(2), "y": float(i)}, lambda b: (b["x"].shape, b["y"].shape) == ((0, 2), (0,))),
    (lambda i: Pair(torch.randn(2), i), lambda b: isinstance(b, Pair) and b.features.shape == (0, 2) and b.label.shape == (0,)),
    (lambda i: (torch.randn(2), f"record {i}"), lambda b: b[0].shape == (0, 2) and len(b[1]) == 0),
    (lambda i: {"x": [torch.randn(2), (torch.randn(3),)]}, lambda b: b["x"][0].shape == (0, 2) and b["x"][1][0].shape == (0, 3)),
    (lambda i: torch.randn(2, 2).half(), lambda b: b.shape == (0, 2, 2) and b.dtype == torch.float16),
]


@pytest.mark.parametrize(("record", "is_empty"), EMPTY, ids=["tuple", "dict", "namedtuple", "strings", "nested", "tensor"])
def test_an_empty_batch_has_the_shape_of_a_batch(record: Any, is_empty: Any) -> None:
    loader = private(DataLoader(Records(record), batch_size=1))
    # A batch is empty with probability 0.95^20 = 0.36; none of 200 with probability below 1e-38.
    batches = [batch for _ in range(10) for batch in loader]
    empty = [batch for batch in batches if rows_of(batch, 0) == 0]
    assert empty and len(empty) < len(batches)
    assert all(is_empty(batch) for batch in empty)
    assert {type(batch) for batch in batches} == {type(batches[0])}


def test_a_collate_function_sees_no_empty_list() -> None:
    def collate(samples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"rows": torch.stack(samples) * 2}

    loader = private(DataLoader(Records(lambda i: torch.full((2,), float(i))), batch_size=1, collate_fn=collate))
    batches = [batch["rows"] for _ in range(10) for batch in loader]
    assert {len(b) for b in batches} >= {0, 1}
    assert all(b.shape[1:] == (2,) and bool((b == b.round()).all()) for b in batches)


def test_the_batch_may_be_the_second_dimension() -> None:
    def collate(samples: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack(samples, 1), torch.arange(len(samples))

    loader = private(DataLoader(Records(lambda i: torch.randn(4, 3)), batch_size=1, collate_fn=collate), batch_first=False)
    batches = [batch for _ in range(10) for batch in loader]
    assert all(x.shape == (4, len(y), 3) for x, y in batches)
    assert {len(y) for _, y in batches} >= {0, 1}


def test_shuffling_sequence_and_subsets_are_accepted() -> None:
    for loader in (
        DataLoader(numbers(20), batch_size=5),
        DataLoader(numbers(20), batch_size=5, shuffle=True),
        DataLoader(numbers(20), batch_size=5, sampler=SequentialSampler(numbers(20))),
        DataLoader(numbers(20), batch_size=5, sampler=RandomSampler(numbers(20))),
        DataLoader(Subset(numbers(40), range(20)), batch_size=5),
    ):
        assert describe_loader(loader) == (20, 5)
        assert all(bool((x < 20).all()) for (x,) in private(loader))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


REFUSED: dict[str, tuple[Any, str]] = {
    "weighted": (lambda: DataLoader(numbers(9), batch_size=3, sampler=WeightedRandomSampler([1.0] * 9, 9)), "WeightedRandomSampler"),
    "subset": (lambda: DataLoader(numbers(9), batch_size=3, sampler=SubsetRandomSampler([0, 1])), "SubsetRandomSampler"),
    "replacement": (lambda: DataLoader(numbers(9), batch_size=3, sampler=RandomSampler(numbers(9), True)), "replacement"),
    "number": (lambda: DataLoader(numbers(9), batch_size=3, sampler=RandomSampler(numbers(9), num_samples=4)), "num_samples"),
    "stream": (lambda: DataLoader(Stream(), batch_size=3), "IterableDataset"),
    "batches": (lambda: DataLoader(numbers(9), batch_sampler=BatchSampler(SequentialSampler(numbers(9)), 3, False)), "batch_sampler"),
    "no batching": (lambda: DataLoader(numbers(9), batch_size=None), "batch_size"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("poisson", [True, False])
def test_loaders_of_unknown_cost_are_refused(kind: str, poisson: bool) -> None:
    build, match = REFUSED[kind]
    with pytest.raises(Unsupported, match=match):
        private(build(), poisson_sampling=poisson)


def test_things_that_are_no_loader_or_hold_nothing_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="DataLoader"):
        describe_loader([1, 2])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="at least one record"):
        describe_loader(DataLoader(Records(float, 0), batch_size=3))


def test_batches_without_tensors_are_refused() -> None:
    with pytest.raises(Unsupported, match="tensors"):
        rows_of({"names": ["a"]}, 0)


def test_a_loader_is_made_private_once() -> None:
    loader = private(DataLoader(numbers(20), batch_size=5))
    with pytest.raises(Unsupported, match="not private yet"):
        private(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_iterations_inside_of_each_other_know_their_own_batches(workers: int) -> None:
    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.randn(40, 1)), batch_size=8, num_workers=workers)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    for (x,) in loader:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
        if engine.steps == 2:
            assert sum(1 for _ in loader) == 5
    assert engine.steps == 5


def test_attributes_of_the_loader_stay() -> None:
    class Mine(DataLoader[Any]):
        def extra(self) -> int:
            return 7

    dataset = numbers(20)
    loader = private(Mine(dataset, batch_size=5, num_workers=0, pin_memory=False))
    assert isinstance(loader, Mine) and loader.extra() == 7
    assert loader.dataset is dataset
    assert type(loader).__name__ == "Mine"
