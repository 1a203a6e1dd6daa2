"""Loaders and loops that are unusual, careless or wrong: what is drawn is charged, rows stay whose they are, or it is refused."""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset, random_split

from hushgrad import BatchMemoryManager, PrivacyEngine
from hushgrad.collate_check import check_collate
from hushgrad.errors import HushgradError, InvalidState, Unsupported
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger
from test_samplings import SAMPLINGS, USERS, Training, arguments

Loader = DataLoader[Any]


def make_private(loader: Loader, **options: Any) -> tuple[PrivacyEngine, nn.Module, torch.optim.Optimizer]:
    engine, module = PrivacyEngine(ledger=":memory:"), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, max_grad_norm=1.0, **{"noise_multiplier": 1.0, **options})
    return engine, module, optimizer


@dataclasses.dataclass
class Pair:
    x: torch.Tensor
    names: list[str]


class Encoding(dict[str, Any]):
    """A dictionary with something beside its items."""

    def __init__(self, items: dict[str, Any], kind: str) -> None:
        super().__init__(items)
        self.kind = kind


def padded(samples: list[dict[str, Any]]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([s["words"] for s in samples], batch_first=True)


COLLATES: dict[str, tuple[Callable[[list[Any]], Any], Callable[[Any], bool]]] = {
    "strings and None": (
        lambda samples: ([s["name"] for s in samples], None, torch.stack([s["x"] for s in samples])),
        lambda b: b[0] == [] and b[1] is None and b[2].shape == (0, 3),
    ),
    "lists of samples": (lambda samples: tuple(zip(*((s["x"], s["name"]) for s in samples))), lambda b: b == ((), ())),
    "list of numbers": (lambda samples: {"y": [s["y"] for s in samples], "scale": 2.0}, lambda b: b == {"y": [], "scale": 2.0}),
    "padded with lengths": (
        lambda samples: (padded(samples), torch.tensor([len(s["words"]) for s in samples])),
        lambda b: b[0].shape == (0, 4) and b[1].shape == (0,),
    ),
    "second dimension": (lambda samples: padded(samples).T, lambda b: b.shape == (4, 0)),
    "joined with offsets": (
        lambda samples: (torch.cat([s["words"] for s in samples]), torch.tensor([0, *np.cumsum([len(s["words"]) for s in samples])])),
        lambda b: b[0].shape == (0,) and b[1].tolist() == [0],
    ),
    "matrix of pairs": (lambda samples: torch.ones(len(samples), len(samples), 5), lambda b: b.shape == (0, 0, 5)),
    "constant beside": (lambda samples: (padded(samples), torch.ones(1, 7)), lambda b: b[0].shape == (0, 4) and b[1].shape == (1, 7)),
    "arrays": (lambda samples: {"x": np.stack([s["x"].numpy() for s in samples])}, lambda b: b["x"].shape == (0, 3)),
    "defaultdict": (
        lambda samples: defaultdict(list, x=torch.stack([s["x"] for s in samples])), lambda b: b["x"].shape == (0, 3) and b["none"] == []
    ),
    "own dictionary": (
        lambda samples: Encoding({"x": torch.stack([s["x"] for s in samples])}, "kept"), lambda b: b["x"].shape == (0, 3) and b.kind == "kept"
    ),
    "dataclass": (
        lambda samples: Pair(torch.stack([s["x"] for s in samples]), [s["name"] for s in samples]),
        lambda b: b.x.shape == (0, 3) and b.names == [],
    ),
    "sparse": (lambda samples: torch.stack([s["x"] for s in samples]).to_sparse(), lambda b: b.shape == (0, 3)),
    "packed": (lambda samples: pack_sequence([s["words"] for s in samples], enforce_sorted=False), lambda b: len(b.data) == 4),
    "takes the samples apart": (lambda samples: torch.stack([s.pop("x") for s in samples]), lambda b: b.shape == (0, 3)),
}  # fmt: skip


class Texts(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": torch.arange(3.0), "words": torch.arange(4), "name": f"record {i}", "y": i}


@pytest.mark.parametrize("kind", COLLATES)
def test_an_empty_batch_of_every_collate_function(kind: str) -> None:
    collate, is_empty = COLLATES[kind]
    loader: Loader = DataLoader(Texts(), batch_size=1, collate_fn=collate)
    make_private(loader)
    assert is_empty(loader.collate_fn([]))  # what a worker calls for a batch of nothing
    sizes = [sum(1 for _ in loader) for _ in range(3)]
    assert sizes == [10] * 3


def test_an_empty_batch_of_a_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")

    def collate(samples: list[dict[str, Any]]) -> Any:
        return transformers.BatchEncoding({"input_ids": padded(samples), "attention_mask": torch.ones(len(samples), 4)})

    loader: Loader = DataLoader(Texts(), batch_size=1, collate_fn=collate)
    make_private(loader)
    empty = loader.collate_fn([])
    assert isinstance(empty, transformers.BatchEncoding)
    assert (empty["input_ids"].shape, empty.attention_mask.shape) == ((0, 4), (0, 4))


def test_a_tokenized_model_trains_with_empty_batches() -> None:
    """Dictionaries of words padded per batch, handed over as keywords; six batches in ten are empty."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            weight = attention_mask.unsqueeze(-1) / attention_mask.sum(1).clamp_min(1)[:, None, None]
            out: torch.Tensor = self.head((self.words(input_ids) * weight).sum(1))
            return out

    words = [torch.randint(20, (1 + i % 7,)) for i in range(30)]

    def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
        return {"input_ids": ids, "attention_mask": mask}

    module, engine = Classifier(), PrivacyEngine(ledger=":memory:")
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader: Loader = DataLoader(words, batch_size=1, collate_fn=collate)  # type: ignore[arg-type]
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    empty = 0
    for batch in loader:
        empty += len(batch["input_ids"]) == 0
        optimizer.zero_grad()
        module(**batch).square().mean().backward()
        optimizer.step()
    assert empty > 0 and engine.steps == 30  # no batch is empty with probability 10^-6
    assert all(bool(p.isfinite().all()) for p in module.parameters())


@pytest.mark.parametrize("managed", [False, True])
def test_a_loop_that_leaves_empty_batches_out_is_stopped(managed: bool) -> None:
    loader: Loader = DataLoader(TensorDataset(torch.randn(60, 1)), batch_size=1)
    engine, module, optimizer = make_private(loader)

    def epoch(batches: Any) -> None:
        for (x,) in batches:
            if len(x) == 0:
                continue
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()

    with pytest.raises(InvalidState, match="empty batch that was left out"):  # not within 60 with probability 10^-20
        if managed:
            with BatchMemoryManager(data_loader=loader, max_physical_batch_size=5, optimizer=optimizer) as virtual:
                epoch(virtual)
        else:
            epoch(loader)
    # Looking at batches without training on them is no step that was left out.
    before = engine.steps
    optimizer.zero_grad()
    for (x,) in loader:
        with torch.no_grad():
            module(x)
    for (x,) in itertools.islice(loader, 5):
        for _ in itertools.islice(loader, 20):
            pass
        if len(x):
            break
    for (x,) in loader:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    assert engine.steps == before + 60


def test_workers_that_stayed_from_before_draw_private_batches() -> None:
    loader: Loader = DataLoader(TensorDataset(torch.arange(40.0)[:, None]), batch_size=10, num_workers=1, persistent_workers=True)
    assert [len(x) for (x,) in loader] == [10] * 4
    engine, module, optimizer = make_private(loader)
    sizes = []
    for (x,) in itertools.chain(loader, loader, loader):
        sizes.append(len(x))
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    assert engine.steps == 12 and set(sizes) != {10}  # all twelve have ten with probability 10^-10


def test_workers_that_stay_serve_one_iteration() -> None:
    """Else the older one would go on with batches of the newer epoch, charged as the older."""
    loader: Loader = DataLoader(TensorDataset(torch.arange(40.0)[:, None]), batch_size=10, shuffle=True, num_workers=1, persistent_workers=True)
    with pytest.warns(UserWarning, match="cost"):
        make_private(loader, sampling="shuffled")
    older = iter(loader)
    next(older)
    newer = iter(loader)
    next(newer)
    with pytest.raises(InvalidState, match="one iteration at a time"):
        next(older)
    assert len(list(newer)) == 3


def test_batches_come_in_the_order_in_which_they_are_announced() -> None:
    """Two users with three records each are as many rows as three with two: out of order they would be clipped as each other."""

    class Slow(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> torch.Tensor:
            time.sleep(0.02 if i % 2 else 0.0)
            return torch.tensor([float(i)])

    loader: Loader = DataLoader(Slow(), batch_size=6, num_workers=2, in_order=False)
    engine, module, optimizer = make_private(loader)
    for x in loader:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()  # refuses another number of rows than announced
    assert engine.steps == 10


def test_a_loader_that_hands_out_other_batches_is_an_error() -> None:
    class Own(DataLoader[Any]):
        def __iter__(self) -> Any:
            return iter([(torch.randn(3, 1),)])

    loader = Own(TensorDataset(torch.randn(6, 1)), batch_size=2)
    make_private(loader)
    with pytest.raises(InvalidState, match="batches that the training run drew"):
        next(iter(loader))


NUMBERS = TensorDataset(torch.arange(12.0)[:, None])
REPEATED = {
    "subset": Subset(NUMBERS, [0, 1, 1, 2]),
    "from the end": Subset(NUMBERS, [0, 11, -1]),
    "concatenation": ConcatDataset([NUMBERS, NUMBERS]),
    "overlapping subsets": ConcatDataset([Subset(NUMBERS, range(8)), Subset(NUMBERS, [7, 8])]),
    "subset of a subset": Subset(Subset(NUMBERS, [3, 3, 4]), [0, 2]),
    "whole and part": ConcatDataset([NUMBERS, Subset(NUMBERS, [0])]),
    "inside": Subset(ConcatDataset([NUMBERS, NUMBERS]), range(20)),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_a_record_that_comes_twice_is_refused(kind: str) -> None:
    with pytest.raises(Unsupported, match="every record of the data set once"):
        if kind == "subset of a subset":
            make_private(DataLoader(Subset(Subset(NUMBERS, [3, 3, 4]), [0, 1]), batch_size=2))
        else:
            make_private(DataLoader(REPEATED[kind], batch_size=2))


def test_parts_of_a_data_set_are_data_sets() -> None:
    parts = random_split(NUMBERS, [5, 4, 3])
    other = TensorDataset(torch.arange(20.0, 25.0)[:, None])
    for data, size in (
        (parts[0], 5),
        (ConcatDataset([parts[0], parts[2]]), 8),
        (ConcatDataset([NUMBERS, other]), 17),
        (Subset(ConcatDataset([NUMBERS, other]), range(3, 16)), 13),
        (Subset(NUMBERS, np.arange(4)), 4),  # type: ignore[arg-type]
        (Subset(NUMBERS, torch.arange(4)), 4),  # type: ignore[arg-type]
    ):
        loader: Loader = DataLoader(data, batch_size=1)
        make_private(loader)
        assert len(loader) == size
        seen = {float(v) for _ in range(30) for (x,) in loader for v in x}
        assert len(seen) == size  # a record is never drawn in 30 epochs with probability e^-30
    make_private(
        DataLoader(ConcatDataset([NUMBERS, NUMBERS]), batch_size=2), sampling="users", user_ids=[*range(12), *range(12)], max_records_per_user=2
    )


class Unknown(Dataset[Any]):
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __getitem__(self, i: int) -> Any:
        return torch.zeros(1)

    def __len__(self) -> int:
        if self.error is OverflowError:
            return sys.maxsize + 1
        raise self.error


@pytest.mark.parametrize("error", [TypeError, NotImplementedError, OverflowError])
def test_data_sets_of_no_length_are_refused(error: type[Exception]) -> None:
    with pytest.raises(Unsupported, match="unknown length"):
        make_private(DataLoader(Unknown(error), batch_size=1, sampler=torch.utils.data.SequentialSampler(range(3))))


def test_a_sampler_of_a_part_says_how_to_train_on_a_part() -> None:
    with pytest.raises(Unsupported, match="Subset"):
        make_private(DataLoader(NUMBERS, batch_size=2, sampler=SubsetRandomSampler([1, 2])))


class Huge(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1_000_000_000

    def __getitem__(self, i: int) -> torch.Tensor:
        assert 0 <= i < len(self)
        return torch.tensor([float(i % 7)])


@pytest.mark.parametrize("sampling", ["poisson", "truncated_poisson", "fixed_size"])
@pytest.mark.parametrize("virtual", [False, True])
def test_a_thousand_million_records_cost_what_a_batch_costs(virtual: bool, sampling: str) -> None:
    loader: Loader = DataLoader(Huge(), batch_size=200, shuffle=True)
    tracemalloc.start()
    engine, module, optimizer = make_private(loader, sampling=sampling)
    assert len(loader) == 5_000_000
    drawn: Any = loader
    if virtual:
        drawn = BatchMemoryManager(data_loader=loader, max_physical_batch_size=64, optimizer=optimizer).__enter__()
        with pytest.raises(TypeError, match="count"):
            len(drawn)
    for x in drawn:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
        if engine.steps == 3:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_two_iterators_and_an_early_end_are_charged_for_all_that_is_stepped(sampling: str, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", **arguments(sampling))
    one, other = iter(training.loader), iter(training.loader)
    stepped = 0
    for iterator in (one, other, one, one, other):
        for (x,) in iterator:
            done = training.engine.steps
            training.step(x)
            if training.engine.steps > done:
                stepped += 1
                break
    training.epoch()
    training.engine.finish()
    charges = len(Ledger(tmp_path / "l.db").steps())
    if sampling in ("shuffled", "random_allocation"):
        assert charges >= 3  # every epoch that a step belongs to, and the last
    else:
        assert charges == training.engine.steps == stepped + len(training.loader if sampling != "users" else range(2))


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_checkpoint_in_the_middle_of_an_epoch_gives_nothing_back(sampling: str, virtual: bool, tmp_path: Path) -> None:
    Keyring.create(tmp_path / "k.json").create_key(dataset="default")
    spent, steps = 0.0, 0
    for attempt in range(2):
        training = Training(tmp_path / "l.db", **arguments(sampling))
        training.engine.keyring = tmp_path / "k.json"
        if attempt == 1:
            training.engine.load_checkpoint(tmp_path / "c.sealed", module=training.module, optimizer=training.optimizer)
        loader: Any = training.loader
        if virtual:
            loader = BatchMemoryManager(data_loader=loader, max_physical_batch_size=4, optimizer=training.optimizer).__enter__()
        for (x,) in loader:
            training.step(x)
            if training.engine.steps == 1:
                break
        if attempt == 0:
            training.engine.save_checkpoint(tmp_path / "c.sealed", module=training.module, optimizer=training.optimizer)
        training.engine.finish()
        ledger = Ledger(tmp_path / "l.db")
        assert len(ledger.steps()) > steps and ledger.spent(dataset="default", delta=1e-5)[1] > spent
        steps, spent = len(ledger.steps()), ledger.spent(dataset="default", delta=1e-5)[1]
    assert len(Ledger(tmp_path / "l.db").steps()) == 2


class Rereadable(IterableDataset[torch.Tensor]):
    def __init__(self, length: int | None) -> None:
        self.length = length

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.tensor([float(i)]) for i in (range(self.length) if self.length else itertools.count()))

    def __len__(self) -> int:
        if self.length is None:
            raise NotImplementedError
        return self.length


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_stream_trains_under_every_law(sampling: str) -> None:
    loader: Loader = DataLoader(Rereadable(60), batch_size=12, pin_memory=sampling == "poisson")
    options = arguments(sampling)
    if sampling in ("shuffled", "sequential"):
        with pytest.warns(UserWarning, match="cost"):
            engine, module, optimizer = make_private(loader, **options)
    else:
        engine, module, optimizer = make_private(loader, **options)
    seen: list[float] = []
    for x in itertools.chain(loader, loader):
        seen += x.flatten().tolist()
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    assert engine.steps == (4 if sampling == "users" else 10)
    if sampling in ("shuffled", "sequential", "random_allocation"):
        assert sorted(seen) == sorted([*range(60), *range(60)])
    assert set(seen) <= set(range(60)) and len(USERS) == 60


def test_an_endless_stream_is_refused() -> None:
    for stream in (Rereadable(None), itertools.count()):
        with pytest.raises(HushgradError):
            make_private(DataLoader(stream, batch_size=2))  # type: ignore[arg-type]


def mixup(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """As it is usually written: each row with the one before it, by a random weight."""
    x, y = torch.utils.data.default_collate(samples)
    weight = float(torch.distributions.Beta(1.0, 1.0).sample())
    return weight * x + (1 - weight) * x.roll(1, 0), y


def cutmix(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.utils.data.default_collate(samples)
    a, b = sorted(np.random.randint(0, x.shape[1] + 1, 2))
    x[:, a:b] = x.flip(0)[:, a:b]
    return x, y


MIXING: dict[str, Callable[[list[Any]], Any]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "standardised": lambda samples: {"x": (x := torch.stack([s[0] for s in samples])) - x.mean(0)},
}
APART: dict[str, Callable[[list[Any]], Any]] = {
    "sorted": lambda samples: torch.stack(sorted((s[0] for s in samples), key=lambda x: float(-x.sum()))),
    "noisy": lambda samples: (x := torch.stack([s[0] for s in samples])) + 0.1 * torch.randn_like(x),
    "flipped at random": lambda samples: torch.stack([s[0].flip(0) if np.random.rand() < 0.5 else s[0] for s in samples]),
    "own randomness": lambda samples: torch.stack([s[0] + np.random.default_rng().random() for s in samples]),
    "padded": lambda samples: nn.utils.rnn.pad_sequence([s[0][: 2 + int(s[1])] for s in samples], batch_first=True, padding_value=-1.0),
    "not for two": lambda samples: torch.stack([s[0] for s in samples]) if len(samples) == 1 else [][0],
    "one record": lambda samples: torch.stack([s[0] for s in samples])[:1],
}  # fmt: skip
IMAGES = TensorDataset(torch.randn(9, 20), torch.arange(9))


@pytest.mark.parametrize("kind", MIXING)
def test_collate_functions_that_mix_records_are_refused(kind: str) -> None:
    with pytest.raises(Unsupported, match="keeps records apart"):
        make_private(DataLoader(IMAGES, batch_size=4, collate_fn=MIXING[kind]))


@pytest.mark.parametrize("kind", APART)
def test_collate_functions_that_keep_records_apart_are_not(kind: str) -> None:
    loader: Loader = DataLoader(IMAGES, batch_size=4, collate_fn=APART[kind])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    check_collate(loader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    make_private(loader)
