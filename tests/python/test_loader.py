"""The private loader: Poisson batches from the secure generator through the user's own DataLoader."""

from __future__ import annotations

import itertools
import math
import os
import re
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

from hushgrad import PrivacyEngine, _core
from hushgrad.errors import InvalidArgument, InvalidState, Unsupported
from hushgrad.loader import describe_loader, steps_per_epoch, tensors_in

def rows_of(batch: Any) -> int:
    return len(next(tensors_in(batch)))


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


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return map(lambda i: (torch.tensor(i),), itertools.count())


class Stream(IterableDataset[Any]):
    """Counts how often it was read; ``short`` records fewer than it says."""

    def __init__(self, records: int, short: int = 0) -> None:
        self.records, self.short, self.passes = records, short, 0

    def __len__(self) -> int:
        return self.records

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return map(lambda i: (torch.tensor(i),), range(self.records - self.short))


@pytest.mark.parametrize("stream", [False, True])
def test_batch_sizes_are_binomial(stream: bool) -> None:
    loader = private(DataLoader(Stream(50) if stream else numbers(50), batch_size=10))
    sizes = Counter(len(x) for _ in range(400) for (x,) in loader)
    total = sum(sizes.values())
    assert total == 2000
    bins = [range(0, 6), *([k] for k in range(6, 15)), range(15, 51)]
    observed = [sum(sizes[k] for k in b) for b in bins]
    expected = [total * sum(stats.binom.pmf(k, 50, 0.2) for k in b) for b in bins]
    # False alarm once in 10^7 runs. Batches of constant size, or of a rate off by a tenth, fail by far.
    assert stats.chisquare(observed, expected).pvalue > 1e-7


@pytest.mark.parametrize("stream", [False, True])
def test_records_are_drawn_alike_and_independently(stream: bool) -> None:
    loader = private(DataLoader(Stream(30), batch_size=6) if stream else DataLoader(numbers(30), batch_size=6, shuffle=True))
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
@pytest.mark.parametrize("stream", [False, True])
def test_length_is_the_number_of_batches(records: int, batch: int, steps: int, stream: bool) -> None:
    loader = private(DataLoader(Stream(records) if stream else numbers(records), batch_size=batch))
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
    empty = [batch for batch in batches if rows_of(batch) == 0]
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




class NoLength(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


REFUSED: dict[str, tuple[Any, str]] = {
    "weighted": (lambda: DataLoader(numbers(9), batch_size=3, sampler=WeightedRandomSampler([1.0] * 9, 9)), "WeightedRandomSampler"),
    "subset": (lambda: DataLoader(numbers(9), batch_size=3, sampler=SubsetRandomSampler([0, 1])), "SubsetRandomSampler"),
    "replacement": (lambda: DataLoader(numbers(9), batch_size=3, sampler=RandomSampler(numbers(9), True)), "replacement"),
    "number": (lambda: DataLoader(numbers(9), batch_size=3, sampler=RandomSampler(numbers(9), num_samples=4)), "num_samples"),
    "endless": (lambda: DataLoader(Endless(), batch_size=3), "unknown or infinite length"),
    "shared stream": (lambda: DataLoader(Stream(9), batch_size=3, num_workers=2), "num_workers=0"),
    "drop_last": (lambda: DataLoader(numbers(9), batch_size=3, drop_last=True), "drop_last=False"),
    "no length": (lambda: DataLoader(NoLength(), batch_size=3, sampler=SequentialSampler(range(9))), "__len__"),
    "batches": (lambda: DataLoader(numbers(9), batch_sampler=BatchSampler(SequentialSampler(numbers(9)), 3, False)), "batch_sampler"),
    "no batching": (lambda: DataLoader(numbers(9), batch_size=None), "batch_size"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("poisson", [True, False])
def test_loaders_of_unknown_cost_are_refused(kind: str, poisson: bool) -> None:
    build, match = REFUSED[kind]
    with pytest.raises(Unsupported, match=match) as refusal:
        private(build(), poisson_sampling=poisson)
    # Reason and alternative: the message goes on after what was received.
    assert re.search(r"Expected .*, received .*[.:] .*\b(Use|Pass|Give|Drop|Leave|Make)\b", str(refusal.value))


def test_things_that_are_no_loader_or_hold_nothing_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="DataLoader"):
        describe_loader([1, 2])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="at least one record"):
        describe_loader(DataLoader(Records(float, 0), batch_size=3))


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


def test_a_stream_is_read_no_more_often_than_its_buffer_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(200)
    loader = private(DataLoader(stream, batch_size=20))
    assert [sorted(x.tolist()) == x.tolist() for (x,) in loader] == [True] * 10
    assert stream.passes == 1
    monkeypatch.setattr("hushgrad.stream.STREAM_BUFFER", 40)
    before = stream.passes
    assert sum(1 for _ in loader) == 10
    # Windows of at most 40 records, about 200 in all; none needs more than a batch.
    assert 4 <= stream.passes - before <= 10


def test_a_stream_that_ends_early_is_an_error() -> None:
    loader = private(DataLoader(Stream(40, short=20), batch_size=40))
    with pytest.raises(InvalidState, match="as many records each time as len"):
        list(loader)


def test_an_empty_batch_of_a_stream_has_the_shape_of_a_batch() -> None:
    loader = private(DataLoader(Stream(20), batch_size=1))
    batches = [x for _ in range(10) for (x,) in loader]
    assert {len(x) for x in batches} >= {0, 1} and all(x.dim() == 1 for x in batches)


def test_a_stream_trains() -> None:
    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    engine = PrivacyEngine(ledger=":memory:")
    loader = DataLoader(Stream(40), batch_size=8)
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    for (x,) in loader:
        optimizer.zero_grad()
        module(x.float().unsqueeze(1)).square().mean().backward()
        optimizer.step()
    assert engine.steps == 5


class Texts(Dataset[torch.Tensor]):
    """Sentences of different lengths; every token is the number of its sentence."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1 + index % 7,), index)


def pad(sentences: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    tokens = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=-1)
    return {"tokens": tokens, "mask": tokens >= 0, "lengths": torch.tensor([len(s) for s in sentences])}


@pytest.mark.parametrize("workers", [0, 2])
def test_text_of_different_lengths_workers_and_pinning(workers: int) -> None:
    pinned = torch.accelerator.is_available()  # pinning without a device only warns
    loader = private(
        DataLoader(Texts(), batch_size=2, collate_fn=pad, num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned)
    )
    batches = [batch for _ in range(8) for batch in loader]
    assert len(batches) == 8 * 15
    assert {len(batch["lengths"]) for batch in batches} >= {0, 1, 2}
    for batch in batches:
        rows = len(batch["lengths"])
        assert batch["tokens"].shape == batch["mask"].shape and len(batch["tokens"]) == rows
        assert batch["mask"].sum(1).tolist() == batch["lengths"].tolist()
        assert batch["tokens"].is_pinned() == pinned
        if rows:
            assert batch["tokens"].max(1).values.unique().numel() == rows


def stream_of_worker(_: int) -> list[int]:
    """Runs in a worker: what a sampler made there draws, and one inherited from the parent where there is one."""
    inherited = [] if SAMPLER is None else SAMPLER.draw()
    return [*_core.PoissonSampler(128, 0.5).draw(), -1, *inherited]


SAMPLER: Any = None


class Streams(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return index, repr(stream_of_worker(index))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_two_workers_share_a_stream(method: str) -> None:
    """Real workers of a real DataLoader, all seeded alike by torch; 24 draws a pass and the parent's."""
    global SAMPLER
    SAMPLER = _core.PoissonSampler(128, 0.5)
    seen = [repr(stream_of_worker(0))]
    for _ in range(2 if method == "fork" else 1):
        torch.manual_seed(5)
        loader = DataLoader(Streams(), batch_size=4, num_workers=2, multiprocessing_context=method)
        seen += [text for _, texts in loader for text in texts]
    drawn = [part for text in seen for part in text.split(", -1")]
    drawn = [part.strip("[], ") for part in drawn if part.strip("[], ")]
    assert len(drawn) >= 25 and len(set(drawn)) == len(drawn)  # by chance: 2^-116


def draws_of_a_rank(rank: int, queue: Any) -> None:
    torch.manual_seed(7)  # the usual way to initialise all ranks alike
    loader = private(DataLoader(numbers(128), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(7)))
    queue.put([x.tolist() for (x,) in loader])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_ranks_that_are_seeded_alike_draw_their_own_batches() -> None:
    context = torch.multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    ranks = [context.Process(target=draws_of_a_rank, args=(rank, queue)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    batches = [batch for _ in ranks for batch in queue.get()]
    for rank in ranks:
        rank.join()
    assert len({tuple(batch) for batch in batches}) == 4
    # Overlap of independent halves of 128: 32 of 64 +- 4.
    included = [set(batch) for batch in batches]
    for a in range(4):
        for b in range(a):
            assert abs(len(included[a] & included[b]) - 32) < 6 * math.sqrt(128 * 3 / 16)


def test_attributes_of_the_loader_stay() -> None:
    class Mine(DataLoader[Any]):
        def extra(self) -> int:
            return 7

    dataset = numbers(20)
    loader = private(Mine(dataset, batch_size=5, num_workers=0, pin_memory=False))
    assert isinstance(loader, Mine) and loader.extra() == 7
    assert loader.dataset is dataset
    assert type(loader).__name__ == "Mine"


def test_a_distributed_sampler_is_refused_by_name() -> None:
    data = numbers(8)
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=0)
    with pytest.raises(Unsupported, match="DistributedSampler"):
        private(DataLoader(data, batch_size=2, sampler=sampler))
