"""Every law of batches that training can take: what comes out of the loader, what is charged, what is clipped, what is noised."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections import Counter, namedtuple
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from charges import charged
from hushgrad import BatchMemoryManager, PrivacyEngine, _core, report
from hushgrad.accounting import (
    BallsInBinsDpEvent,
    DpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    TruncatedSubsampledGaussianDpEvent,
    epsilon,
)
from hushgrad.batches import SAMPLINGS
from hushgrad.errors import InvalidArgument, InvalidState
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger

RECORDS, BATCH, DELTA = 60, 12, 1e-5
USERS = [i // 3 for i in range(RECORDS)]  # twenty, of three records each

Arguments = dict[str, Any]


def arguments(sampling: str) -> Arguments:
    users = {"user_ids": USERS, "max_records_per_user": 2} if sampling == "users" else {}
    return {"sampling": sampling, **users}


class Training:
    """One number a record, so that which records a batch held can be read off it."""

    def __init__(self, ledger: str | Path = ":memory:", *, optimizer: Callable[..., Any] = torch.optim.SGD, **options: Any) -> None:
        self.engine = PrivacyEngine(ledger=ledger)
        torch.manual_seed(0)
        self.module: nn.Module = options.pop("module", None) or nn.Linear(1, 1)
        self.optimizer = optimizer(self.module.parameters(), 0.1)
        data = options.pop("data", None) or TensorDataset(torch.arange(RECORDS))
        loading = options.pop("loading", {})
        self.loader: DataLoader[Any] = DataLoader(data, batch_size=BATCH, shuffle=True, **loading)
        make = self.engine.make_private_with_epsilon if "target_epsilon" in options else self.engine.make_private
        common = {"module": self.module, "optimizer": self.optimizer, "data_loader": self.loader, "max_grad_norm": 1.0}
        options = options if "target_epsilon" in options else {"noise_multiplier": 2.0, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            make(**{**common, **options})

    def step(self, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        (self.module(x.float().unsqueeze(1)) * 0).mean().backward()
        self.optimizer.step()

    def epoch(self) -> list[list[int]]:
        """The logical batches."""
        batches: list[list[int]] = [[]]
        for (x,) in self.loader:
            done = self.engine.steps
            self.step(x)
            batches[-1] += x.tolist()
            if self.engine.steps > done:
                batches.append([])
        assert batches.pop() == []
        return batches


def expected_events(sampling: str, module: nn.Module, z: float = 2.0) -> list[DpEvent]:
    """Of one epoch."""
    steps = 2 if sampling == "users" else RECORDS // BATCH
    rate = _core.PoissonSampler(1, Fraction(BATCH, 20 if sampling == "users" else RECORDS)).charged_rate
    poisson = PoissonSampledDpEvent
    ideal: dict[str, DpEvent] = {
        "poisson": poisson(rate, GaussianDpEvent(z)),
        "truncated_poisson": TruncatedSubsampledGaussianDpEvent(RECORDS, rate, BATCH + 21, z),
        "fixed_size": poisson(rate, GaussianDpEvent(z / 2)),
        "random_allocation": BallsInBinsDpEvent(steps, GaussianDpEvent(z)),
        "shuffled": GaussianDpEvent(math.nextafter(z / math.sqrt(5), 0.0)),
        "sequential": GaussianDpEvent(z / 2),
        "users": poisson(rate, GaussianDpEvent(z)),
    }
    if sampling in ("shuffled", "random_allocation"):
        return [charged(ideal[sampling], z, module, steps)]
    return [charged(ideal[sampling], z, module)] * steps


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_is_charged_is_the_law(sampling: str, virtual: bool, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", **arguments(sampling))
    if virtual:
        with BatchMemoryManager(data_loader=training.loader, max_physical_batch_size=5, optimizer=training.optimizer) as loader:
            for (x,) in loader:
                training.step(x)
    else:
        training.epoch()
    training.engine.finish()
    ledger = Ledger(tmp_path / "l.db")
    events = expected_events(sampling, training.module)
    charges = [step.event.to_json() for step in ledger.steps()]
    assert charges == [event.to_json() for event in events]
    # The native engine is held against the same file.
    golden = json.loads((Path(__file__).parent.parent / "charges_of_laws.json").read_text())[sampling]
    assert [json.loads(charge) for charge in charges] == [golden["event"]] * golden["charges"]
    assert training.engine.steps == (2 if sampling == "users" else 5)
    (run,) = ledger.runs()
    assert (run.plan["sampling"], run.plan["dataset_size"]) == (sampling, RECORDS)
    assert report.render(report.build(ledger))


def clipped_noise(z: float, clipping: str) -> float:
    """Deviation of the gradient's noise in clipping bounds: under adaptive clipping its count takes a share."""
    count = max(BATCH / 20, z)
    return (z**-2 - (2 * count) ** -2) ** -0.5 if clipping == "adaptive" else z


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": torch.optim.SGD,
    "sgd foreach": lambda p, lr: torch.optim.SGD(p, lr, foreach=True, momentum=0.9),
    "adam fused": lambda p, lr: torch.optim.Adam(p, lr, fused=True),
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sensitivity", ["empirical", "certified"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_noise_has_the_charged_deviation(sampling: str, sensitivity: str, optimizer: str) -> None:
    """z C / expected batch size, whatever the law, the clipping, the virtual batches and the optimizer. 6 * 10^4 coordinates a case,
    224 cases; a false alarm of any has probability 10^-6."""
    sampled = "users" if sampling == "users" else "records"
    expected = {"users": BATCH, "records": BATCH}[sampled]
    clippings = ["flat"] if sensitivity == "certified" else ["flat", "per_layer", "automatic", "adaptive"]
    for clipping, virtual in itertools.product(clippings, (False, True)):
        module = nn.Sequential(nn.Linear(1, 30), nn.Linear(30, 1000), nn.Linear(1000, 30), nn.Flatten())
        training = Training(
            module=module, optimizer=OPTIMIZERS[optimizer], clipping=clipping, sensitivity=sensitivity, max_grad_norm=0.25, **arguments(sampling)
        )
        limit = 7 if virtual else 10**6
        with BatchMemoryManager(data_loader=training.loader, max_physical_batch_size=limit, optimizer=training.optimizer) as loader:
            for (x,) in loader:
                training.step(x)
                if training.engine.steps > 0:
                    break
        gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).double()
        deviation = clipped_noise(2.0, clipping) * 0.25 / expected
        z_score = (float(gradient.square().mean()) / deviation**2 - 1) / math.sqrt(2 / gradient.numel())
        assert abs(z_score) < 5.9, (clipping, virtual, z_score)


# What the batches are.


def test_fixed_size_batches_have_one_size() -> None:
    batches = [batch for _ in range(20) for batch in Training(sampling="fixed_size").epoch()]
    assert {len(batch) for batch in batches} == {BATCH} and all(len(set(batch)) == BATCH for batch in batches)


def test_truncated_batches_have_a_limit() -> None:
    training = Training(sampling="truncated_poisson", max_batch_size=13)
    sizes = Counter(len(batch) for _ in range(60) for batch in training.epoch())
    assert max(sizes) == 13
    # P(Binomial(60, 1/5) >= 13) = 0.38; 300 batches; false alarm below 1e-6.
    cut = stats.binom.sf(12, RECORDS, BATCH / RECORDS)
    assert stats.binomtest(sizes[13], 300, cut).pvalue > 1e-6


def test_an_allocated_epoch_holds_every_record_once_in_a_random_batch() -> None:
    training = Training(sampling="random_allocation")
    counts = np.zeros((RECORDS, 5))
    for _ in range(60):
        batches = training.epoch()
        assert sorted(itertools.chain.from_iterable(batches)) == list(range(RECORDS))
        for place, batch in enumerate(batches):
            counts[batch, place] += 1
    # 60 records, 4 degrees of freedom each; false alarm 1e-6.
    assert stats.chi2.sf(((counts - 12) ** 2 / 12).sum(), 4 * RECORDS) > 1e-6


def test_a_new_noise_multiplier_in_an_allocated_epoch_is_charged_without_amplification(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", sampling="random_allocation")
    for place, (x,) in enumerate(training.loader):
        training.step(x)
        if place == 1:
            training.engine.noise_multiplier = 1.5
    first, second = [step.event for step in Ledger(tmp_path / "l.db").steps()]
    assert first == expected_events("random_allocation", training.module)[0]
    assert second.event == GaussianDpEvent(1.5)  # type: ignore[attr-defined]


# Users.


def owned(batch: list[int]) -> dict[int, list[int]]:
    users: dict[int, list[int]] = {}
    for record in batch:
        users.setdefault(USERS[record], []).append(record)
    return users


def test_users_are_drawn_independently_with_a_bounded_choice_of_records() -> None:
    training = Training(**arguments("users"))
    seen: Counter[int] = Counter()
    records: Counter[int] = Counter()
    epochs = 150
    for _ in range(epochs):
        for batch in training.epoch():
            users = owned(batch)
            assert all(len(of) == len(set(of)) == 2 for of in users.values())
            seen.update(users.keys())
            records.update(batch)
    draws = 2 * epochs
    # Twenty users of probability 3/5; two of three records each. False alarms 1e-6.
    q = BATCH / 20
    assert stats.chi2.sf(sum((seen[u] - draws * q) ** 2 / (draws * q * (1 - q)) for u in range(20)), 20) > 1e-6
    share = q * 2 / 3
    assert all(abs(records[r] - draws * share) < 5.9 * math.sqrt(draws * share * (1 - share)) for r in range(RECORDS))


class Uneven(Dataset[Any]):
    """Users of one to four records; the record is a dictionary."""

    def __init__(self) -> None:
        self.owners = [user for user in range(16) for _ in range(1 + user % 4)]
        torch.manual_seed(5)
        self.x = torch.randn(len(self.owners), 3)

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, i: int) -> Any:
        return {"x": self.x[i], "record": i, "who": f"patient {self.owners[i]}"}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


@pytest.mark.parametrize("sensitivity", ["empirical", "certified"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_users_whole_contribution_is_clipped(reduction: str, workers: int, sensitivity: str) -> None:
    """Against the naive sum over users of clip(gradient of that user's own loss)."""
    bound, data, module = 0.3, Uneven(), network()
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    loader: DataLoader[Any] = DataLoader(data, batch_size=6, num_workers=workers)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=bound, loss_reduction=reduction, sampling="users",
        user_ids="who", max_records_per_user=3, sensitivity=sensitivity,
    )  # fmt: skip
    reduce = torch.mean if reduction == "mean" else torch.sum
    twin, rows, before = network(), [], nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    assert len(loader) >= 3
    for batch in loader:
        done = engine.steps
        counts = Counter(batch["who"])
        assert len(set(counts.values())) <= 1 and (sensitivity == "empirical" or len(counts) <= 1)
        rows += list(zip(batch["who"], batch["record"].tolist()))
        optimizer.zero_grad()
        # The loss of a row; of a user, the mean or the sum over the rows.
        reduce(module(batch["x"]).square().sum(1)).backward()
        optimizer.step()
        if engine.steps == done:
            continue
        nn.utils.vector_to_parameters(before, twin.parameters())
        total = torch.zeros_like(before)
        for who in {who for who, _ in rows}:
            mine = data.x[[record for owner, record in rows if owner == who]]
            assert 1 <= len(mine) <= 3
            gradients = torch.autograd.grad(reduce(twin(mine).square().sum(1)), list(twin.parameters()))
            gradient = torch.cat([g.flatten() for g in gradients])
            total += gradient * min(1.0, bound / float(gradient.norm()))
        scale = 6 if reduction == "mean" else 1
        tolerance = {"empirical": 1e-6, "certified": 2e-3}[sensitivity]
        after = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        assert torch.allclose(after, before - total / scale, rtol=tolerance, atol=max(tolerance * bound, 1e-6))
        before, rows = after, []
    assert engine.steps == 3 and not rows


class Images(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> Any:
        generator = torch.Generator().manual_seed(i)
        return torch.randn(1, 6, 6, generator=generator), torch.randint(0, 9, (5,), generator=generator)


class Encoder(nn.Module):
    """Convolution, group normalisation, embedding, LSTM, attention: rows of a user pass through all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 8))
        self.embedding, self.lstm = nn.Embedding(9, 8), nn.LSTM(8, 8, batch_first=True)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(16, 3)

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(words))
        attended, _ = self.attention(states, states, states)
        logits: torch.Tensor = self.head(torch.cat([self.convolution(image), attended.mean(1)], 1))
        return logits


@pytest.mark.parametrize("records", [1, 2, 3])
def test_users_train_every_kind_of_layer(records: int) -> None:
    torch.manual_seed(2)
    module, bound = Encoder(), 0.05
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    loader = DataLoader(Images(), batch_size=8)
    engine = PrivacyEngine(ledger=":memory:")
    ids = [i // records for i in range(24)]
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=bound, sampling="users", user_ids=ids,
        max_records_per_user=records,
    )  # fmt: skip
    twin, total = Encoder(), None
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=1, optimizer=optimizer) as users:
        for image, words in users:
            if total is None:
                twin.load_state_dict(module.state_dict())
                total = torch.zeros(sum(p.numel() for p in module.parameters()))
            if len(image) > 0:
                own = torch.autograd.grad(twin(image, words).square().sum(1).mean(), list(twin.parameters()))
                gradient = torch.cat([g.flatten() for g in own])
                total += gradient * min(1.0, bound / float(gradient.norm()))
            done = engine.steps
            optimizer.zero_grad()
            module(image, words).square().sum(1).mean().backward()
            optimizer.step()
            if engine.steps > done:
                got = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
                assert torch.allclose(got, total / 8, rtol=1e-4, atol=1e-7)
                total = None
    assert engine.steps == 24 // records // 8 + (24 // records % 8 > 0)


def test_layers_that_part_a_users_rows_clip_whole_users_all_the_same() -> None:
    # Attention takes its heads apart, so a user's rows lie far from each other: they are told apart one by one.
    torch.manual_seed(2)
    module, bound = Encoder(), 0.05
    optimizer, loader = torch.optim.SGD(module.parameters(), 1.0), DataLoader(Images(), batch_size=12)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=bound, sampling="users",
        user_ids=[i // 2 for i in range(24)], max_records_per_user=2,
    )  # fmt: skip
    twin, seen = Encoder(), 0
    for image, words in loader:
        twin.load_state_dict(module.state_dict())
        total = torch.zeros(sum(p.numel() for p in module.parameters()))
        for own_image, own_words in zip(image.split(2), words.split(2), strict=True):
            own = torch.autograd.grad(twin(own_image, own_words).square().sum(1).mean(), list(twin.parameters()))
            gradient = torch.cat([g.flatten() for g in own])
            total += gradient * min(1.0, bound / float(gradient.norm()))
        optimizer.zero_grad()
        module(image, words).square().sum(1).mean().backward()
        optimizer.step()
        got = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        assert torch.allclose(got, total / 12, rtol=1e-4, atol=1e-7)
        seen += len(image)
    assert seen > 0


Visit = namedtuple("Visit", "who x")


class Visits(Dataset[Any]):
    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, i: int) -> Visit:
        return Visit(USERS[i], torch.tensor(float(i)))


class Table(Visits):
    """A column by its name, as tables give it; records are never asked."""

    column_names = ["who", "x"]

    def __getitem__(self, i: Any) -> Any:
        assert i == "who", "read the column"
        return USERS


IDS = {
    "list": USERS,
    "tuple of texts": tuple(f"p{u}" for u in USERS),
    "array": np.array(USERS),
    "tensor": torch.tensor(USERS),
    "generator": None,
    "column": "who",
    "function": lambda visit: visit.who,
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_come_in_many_ways(kind: str, tmp_path: Path) -> None:
    ids = (u for u in USERS) if kind == "generator" else IDS[kind]
    Training(tmp_path / "l.db", data=Visits(), sampling="users", user_ids=ids, max_records_per_user=5)
    (run,) = Ledger(tmp_path / "l.db").runs()
    assert run.plan["unit"] == "user" and run.plan["max_records_per_user"] == 5
    assert run.plan["sampling_rate"] == pytest.approx(BATCH / 20)


def test_a_dataset_has_one_unit(tmp_path: Path) -> None:
    users, records = Training(tmp_path / "l.db", **arguments("users")), Training(tmp_path / "l.db")
    users.epoch()
    with pytest.raises(InvalidState, match="compare the same neighbours"):
        records.epoch()
    with pytest.raises(InvalidState, match="dataset name of their own"):
        Training(tmp_path / "l.db", sampling="shuffled")
    assert records.engine.steps == 0
    users.engine.finish()
    ledger = Ledger(tmp_path / "l.db")
    assert {step.run_id for step in ledger.steps()} == {users.engine.run_id}
    (section,) = report.build(ledger)["content"]["datasets"]
    assert section["privacy"]["unit"].startswith("one user")
    assert b"one user with all records added or removed" in report.render(report.build(ledger))


def test_a_table_gives_its_column() -> None:
    Training(data=Table(), sampling="users", user_ids="who", max_records_per_user=1)


REFUSED: dict[str, tuple[Arguments, str]] = {
    "unknown law": ({"sampling": "weighted"}, "one of"),
    "two laws": ({"sampling": "poisson", "poisson_sampling": False}, "Drop one"),
    "limit of another law": ({"max_batch_size": 20}, "truncated_poisson"),
    "limit below the batch": ({"sampling": "truncated_poisson", "max_batch_size": BATCH - 1}, "max_batch_size"),
    "limit that is no number": ({"sampling": "truncated_poisson", "max_batch_size": True}, "max_batch_size"),
    "ids of another law": ({"user_ids": USERS}, "'users'"),
    "no ids": ({"sampling": "users", "max_records_per_user": 1}, "user_ids"),
    "too few ids": ({"sampling": "users", "user_ids": USERS[1:], "max_records_per_user": 1}, "59"),
    "no limit": ({"sampling": "users", "user_ids": USERS}, "max_records_per_user"),
    "limit of none": ({"sampling": "users", "user_ids": USERS, "max_records_per_user": 0}, "max_records_per_user"),
    "nobody": ({"sampling": "users", "user_ids": [None] * RECORDS, "max_records_per_user": 1}, "without one"),
    "not a number": ({"sampling": "users", "user_ids": [math.nan] * RECORDS, "max_records_per_user": 1}, "without one"),
    "no such column": ({"sampling": "users", "user_ids": "patient", "max_records_per_user": 1}, "'patient'"),
    "not hashable": ({"sampling": "users", "user_ids": [[1]] * RECORDS, "max_records_per_user": 1}, "without one"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_law_is_refused(kind: str, tmp_path: Path) -> None:
    options, words = REFUSED[kind]
    with pytest.raises(InvalidArgument, match=words):
        Training(tmp_path / "l.db", data=Visits(), **options)
    assert Ledger(tmp_path / "l.db").runs() == []


# Targets.


@pytest.mark.parametrize("noise", ["lattice_gaussian", "exact_lattice_gaussian"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_target_is_met_and_used(sampling: str, noise: str) -> None:
    for clipping in ("flat", "adaptive"):
        training = Training(
            target_epsilon=3.0, target_delta=DELTA, epochs=2, clipping=clipping, noise=noise, **arguments(sampling)
        )
        for _ in range(2):
            training.epoch()
        training.engine.finish()
        assert 2.97 < training.engine.get_epsilon(DELTA) <= 3.0, clipping


def test_exact_noise_is_charged_without_a_gap() -> None:
    fast, exact = Training(), Training(noise="exact_lattice_gaussian")
    fast.epoch(), exact.epoch()
    ideal = epsilon(exact_event := expected_events("poisson", exact.module)[0].event, DELTA)  # type: ignore[attr-defined]
    assert ideal[1] > 0 and exact.engine._sessions[0].training.history().count("FinitePrecision") == 0
    assert exact_event.to_json() in exact.engine._sessions[0].training.history()
    assert exact.engine.get_epsilon(DELTA) < fast.engine.get_epsilon(DELTA) < exact.engine.get_epsilon(DELTA) + 1e-4


# Loaders.


@pytest.mark.parametrize(("sampling", "method"), [("fixed_size", "fork"), ("random_allocation", "fork"), ("users", "spawn")])
def test_persistent_workers_and_pinned_memory(sampling: str, method: str) -> None:
    loading = {"num_workers": 2, "persistent_workers": True, "pin_memory": True, "multiprocessing_context": method, "prefetch_factor": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training = Training(loading=loading, **arguments(sampling))
        first, second = training.epoch(), training.epoch()
    assert first != second and training.engine.steps == len(first) + len(second)


def test_length_is_exact_for_every_size() -> None:
    """No step is lost to int(1 / (1 / n)), and the rate times the size is the batch."""
    data = TensorDataset(torch.arange(2000))
    for records in (*range(1, 200, 9), 93, 99, 105, 117, 1000, 1999, 2000):
        loader: DataLoader[Any] = DataLoader(torch.utils.data.Subset(data, range(records)), batch_size=1)
        module = nn.Linear(1, 1)
        PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
        )
        assert len(loader) == records


def test_empty_batches_of_users_are_steps() -> None:
    """Twelve of a thousand users with two records each, so that (1 - 12/1000)^1000 is 6 in a million; one of a thousand: a third."""
    training = Training(
        data=TensorDataset(torch.arange(2000)), sampling="users", user_ids=[i // 2 for i in range(2000)], max_records_per_user=1, loading={}
    )
    assert len(training.epoch()) == 84
    module = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.arange(40)), batch_size=1)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0, sampling="users", user_ids=range(40),
        max_records_per_user=1,
    )  # fmt: skip
    empty = 0
    for (x,) in loader:
        empty += len(x) == 0
        before = [p.clone() for p in module.parameters()]
        optimizer.zero_grad()
        module(x.float().unsqueeze(1)).sum().backward()
        optimizer.step()
        assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters()))
    assert engine.steps == 40 and empty > 0  # none of 40 with probability 4 * 10^-8


def test_a_resumed_epoch_draws_anew_and_is_charged_again(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "k.json").create_key(dataset="default")
    drawn = []
    for attempt in range(2):
        training = Training(tmp_path / "l.db")
        training.engine.keyring = tmp_path / "k.json"
        if attempt == 1:
            training.engine.load_checkpoint(tmp_path / "c.sealed", module=training.module, optimizer=training.optimizer)
        batches = []
        for place, (x,) in enumerate(training.loader):
            training.step(x)
            batches.append(x.tolist())
            if place == 2:
                break
        drawn.append(batches)
        if attempt == 0:
            training.engine.save_checkpoint(tmp_path / "c.sealed", module=training.module, optimizer=training.optimizer)
        training.engine.finish()
    assert drawn[0] != drawn[1]
    assert len(Ledger(tmp_path / "l.db").steps()) == 6
