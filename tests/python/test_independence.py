"""Models whose samples are not independent are refused, all others are left as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.errors import Unsupported
from hushgrad.independence import check_forward, check_modules


def train(module: nn.Module, data: torch.Tensor, steps: int = 2) -> None:
    """Two steps on batches of at least two samples, as a user's script would take them."""
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(data), batch_size=data.size(0) - 1)
    module, optimizer, loader = PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    for _ in range(steps):
        for (x,) in loader:
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
            break


class Between(nn.Module):
    """linear, tanh, operation, linear."""

    def __init__(self, operation: Callable[[torch.Tensor], torch.Tensor], inputs: int = 6, hidden: int = 6) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, 3)
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.operation(torch.tanh(self.first(x))))


class Before(nn.Module):
    """The operation on the inputs, which the graph does not record."""

    def __init__(self, operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.operation(x))


def frozen(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    for p in norm.parameters():
        p.requires_grad_(False)
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(6),
        nn.BatchNorm1d(6, affine=False),
        nn.BatchNorm1d(6, track_running_stats=False).eval(),
        frozen(nn.BatchNorm1d(6)),
        nn.SyncBatchNorm(6),
    ],
    ids=["train", "no affine", "no statistics", "frozen", "sync"],
)
def test_batch_norm_is_refused_by_name(norm: nn.Module) -> None:
    with pytest.raises(Unsupported, match=r"'1' \(.*BatchNorm.*GroupNorm"):
        train(nn.Sequential(nn.Linear(6, 6), norm), torch.randn(20, 6))


def test_batch_norm_in_evaluation_mode_is_a_constant() -> None:
    norm = nn.BatchNorm1d(6).eval()
    check_modules(nn.Sequential(nn.Linear(6, 6), norm))


def test_batch_norm_that_is_set_to_training_later_is_refused() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    module = nn.Sequential(nn.Linear(6, 6), norm, nn.Linear(6, 3))
    norm.eval()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module, optimizer, loader = PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=DataLoader(TensorDataset(torch.randn(20, 6)), batch_size=19),
        noise_multiplier=1.0, max_grad_norm=1.0,
    )  # fmt: skip
    module.train()
    with pytest.raises(Unsupported, match="NativeBatchNormBackward0"):
        for (x,) in loader:
            module(x)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Sequential(nn.Conv1d(2, 3, 1), nn.InstanceNorm1d(3, track_running_stats=True)), "'1' .*track_running_stats=False"),
        (nn.Sequential(nn.Embedding(5, 3, max_norm=1.0)), "'0' .*max_norm"),
        (nn.Sequential(nn.EmbeddingBag(5, 3, max_norm=1.0)), "'0' .*max_norm"),
        (nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True)), "scale_grad_by_freq=False.*'0' "),
    ],
    ids=["instance norm", "embedding", "bag", "frequency"],
)
def test_modules_that_keep_or_count_data_are_refused_by_name(module: nn.Module, match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        train(module, torch.randn(20, 2, 4))


def batch_attention(h: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(h.unsqueeze(0), h.unsqueeze(0), h.unsqueeze(0)).squeeze(0)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda h: h - h.mean(0), "SubBackward0"),
        (lambda h: h / h.std(0), "DivBackward0"),
        (lambda h: F.softmax(h, 0), "SoftmaxBackward0"),
        (lambda h: h.sort(0)[0], "SortBackward0"),
        (lambda h: h.roll(1, 0), "RollBackward0"),
        (lambda h: h.cumsum(0), "CumsumBackward0"),
        (batch_attention, "(Bmm|ScaledDot)"),
        (lambda h: h + h[:1], "AddBackward0"),
        (lambda h: h[torch.arange(h.size(0)).flip(0)], "IndexBackward0"),
    ],
    ids=["centre", "scale", "softmax", "sort", "roll", "cumsum", "attention", "first", "permute"],
)
def test_hidden_values_that_mix_are_refused_with_the_operator(operation: Callable[[torch.Tensor], torch.Tensor], name: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported, match=f"{name}.* mixes the samples"):
        train(Between(operation), torch.randn(20, 6))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x - x.mean(0),
        lambda x: x / x.std(0),
        lambda x: x.roll(1, 0),
        lambda x: x.sort(0)[0],
        lambda x: x.cumsum(0),
        lambda x: x * (x.argsort(0) % 2),
        lambda x: x[torch.arange(x.size(0)).flip(0)],
    ],
    ids=["centre", "scale", "roll", "sort", "cumsum", "rank", "permute"],
)
def test_inputs_that_mix_are_refused(operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="output for one sample changes when another"):
        train(Before(operation), torch.randn(20, 6))


@pytest.mark.parametrize(
    "operation",
    [
        lambda h: h - h.detach().mean(0),
        lambda h: h * h.detach().std(0),
        lambda h: h * (h.detach() > h.detach().median()),
        lambda h: h + h.detach().roll(1, 0),
    ],
    ids=["mean", "deviation", "median", "roll"],
)
def test_detached_statistics_are_refused(operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="output for one sample changes when another"):
        train(Between(operation), torch.randn(20, 6))


def straight_through(sums: torch.Tensor) -> torch.Tensor:
    """Zero, with the gradient of its argument."""
    return sums - sums.detach()


class Weighted(nn.Module):
    """A parameter beside the layers, used as the test says."""

    def __init__(self, use: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.w, self.use = nn.Linear(6, 3), nn.Parameter(torch.randn(6, 3)), use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.use(x, self.w)


@pytest.mark.parametrize(
    "use",
    [
        lambda x, w: straight_through((x @ w).sum(0)),
        lambda x, w: straight_through((x[:, :3] * w[0]).sum(0)),
        lambda x, w: straight_through(w * x.mean()).sum(0),
        lambda x, w: straight_through(w[(x[:, 0] > 0).long()].sum(0)),
        lambda x, w: F.linear(x, (w * x.detach().std()).t()),
        lambda x, w: straight_through(x.detach().t() @ (x @ w)).sum(0),
    ],
    ids=["product", "scale", "number", "lookup", "weight", "products"],
)
def test_gradients_that_mix_where_no_output_moves_are_refused(use: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported):
        train(Weighted(use), torch.randn(20, 6))


def test_counts_that_neighbours_leave_as_they_are_are_seen() -> None:
    """Signs in the order ++--: where every second sample takes its neighbour's place, each row is looked up as often as before."""
    data = torch.randn(20, 6).abs()
    data[:, 0] *= torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(5)
    module = Weighted(lambda x, w: straight_through(w[(x[:, 0] > 0).long()].sum(0)))
    module, _, loader = PrivacyEngine(ledger=":memory:").make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), 0.1),
        data_loader=DataLoader(TensorDataset(data), batch_size=20),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    with pytest.raises(Unsupported):
        module(next(iter(loader))[0]).square().mean().backward()


@pytest.mark.parametrize(
    "use",
    [
        lambda x, w: x @ (torch.eye(6) * 2 @ w),
        lambda x, w: torch.linspace(0, 1, 6) @ w,
        lambda x, w: torch.fft.rfft(w, dim=0).abs().sum(0) * x[:, :3],
        lambda x, w: w.float().cumsum(0).std(0) + torch.linalg.svdvals(w).sum(),
    ],
    ids=["constant matrix", "constant row", "spectrum", "statistics"],
)
def test_functions_of_parameters_and_constants_are_accepted(use: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    train(Weighted(use), torch.randn(20, 6))


def test_a_batch_cut_to_its_longest_sample_is_refused() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(tokens)[:, : int((tokens > 0).sum(1).max())].mean(1))

    torch.manual_seed(0)
    tokens = torch.randint(1, 9, (20, 7)) * (torch.arange(7) < torch.randint(2, 7, (20, 1)))
    with pytest.raises(Unsupported, match="output for one sample changes when another"):
        train(Cut(), tokens)


def test_a_buffer_that_takes_up_data_is_refused() -> None:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("average", torch.zeros(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.average.mul_(0.9).add_(0.1 * x.detach().mean(0))  # type: ignore[operator,union-attr]
            return self.layer(x)

    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="'average'"):
        train(Averaging(), torch.randn(20, 6))


class Counting(nn.Module):
    """Buffers that change, in place and by assignment, but not with the data; and that the backward pass needs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.offset = self.offset + 1
        return self.layer(x * self.calls) * self.offset


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.InstanceNorm1d(4, affine=True), nn.Flatten()),
        lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 1, 8, dropout=0.3, batch_first=True)),
        lambda: nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)).eval(), nn.Linear(8, 3)),
        lambda: nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, 3)),
        Counting,
    ],
    ids=["dropout", "group norm", "layer norm", "instance norm", "transformer", "spectral norm", "estimating spectral norm", "constant batch norm", "counter"],
)
def test_independent_models_are_accepted(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    train(build(), torch.randn(20, 6))


@pytest.mark.parametrize("scale", [1e-2, 1e12])
def test_mixing_is_seen_at_any_scale(scale: float) -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported):
        train(Between(lambda h: scale * (h - h.mean(0))), torch.randn(20, 6))
    with pytest.raises(Unsupported):
        train(Before(lambda x: x + scale * (x - x.mean(0))), torch.randn(20, 6))


@pytest.mark.parametrize("value", [1e20, float("inf"), float("nan")])
def test_one_strange_sample_neither_hides_mixing_nor_counts_as_mixing(value: float) -> None:
    torch.manual_seed(0)
    data = torch.randn(20, 6)
    data[5] = value
    train(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), data)
    train(nn.Sequential(nn.Linear(6, 3)), data)
    for operation in (lambda x: x - x.mean(0), lambda x: x.roll(1, 0), lambda x: x.cumsum(0)):
        with pytest.raises(Unsupported):
            train(Before(operation), data)
        with pytest.raises(Unsupported):
            train(Between(lambda h, f=operation: h - f(h.detach())), data)


def test_a_refused_model_stays_refused() -> None:
    torch.manual_seed(0)
    module: nn.Module = Before(lambda x: x - x.mean(0))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    engine = PrivacyEngine(ledger=":memory:")
    module, optimizer, loader = engine.make_private(
        module=module, optimizer=optimizer, data_loader=DataLoader(TensorDataset(torch.randn(20, 6)), batch_size=19),
        noise_multiplier=1.0, max_grad_norm=1.0,
    )  # fmt: skip
    before = [p.detach().clone() for p in module.parameters()]
    for _ in range(2):
        for (x,) in loader:
            with pytest.raises(Unsupported):
                module(x)
            with pytest.raises(Unsupported):
                optimizer.step()
    assert engine.steps == 0
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(module.parameters(), before))


def test_the_checks_move_neither_random_stream_nor_buffers_nor_results() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Counting(), nn.Dropout(0.5), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.randn(20, 6)), batch_size=19)
    module, optimizer, loader = PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    for (x,) in loader:
        torch.manual_seed(7)
        checked = module(x)  # the first pass: probes and forward checks run
        after = torch.get_rng_state()
        assert (float(module[0].calls), float(module[0].offset)) == (1, 1)  # type: ignore[arg-type]
        checked.sum().backward()
        with torch.no_grad():
            module[0].calls.zero_()  # type: ignore[operator,union-attr]
            module[0].offset.zero_()  # type: ignore[operator,union-attr]
            torch.manual_seed(7)
            plain = module(x)
        assert torch.equal(checked.detach(), plain)
        assert torch.equal(after, torch.get_rng_state())
        break


def test_the_forward_check_sees_every_pair() -> None:
    # Only samples 11 and 4 of 13 are coupled, in one direction.
    def couple(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        if y.size(0) > 11:
            y[11] = x[11] + 0.01 * x[4]
        return y

    torch.manual_seed(0)
    module = Before(couple)
    with pytest.raises(Unsupported):
        check_forward(module, (torch.randn(13, 6),), {}, 13, 0)
    check_forward(module, (torch.randn(10, 6),), {}, 10, 0)
    with pytest.raises(Unsupported):
        check_forward(module, (), {"x": torch.randn(13, 6)}, 13, 0)


def test_the_forward_check_follows_the_batch_dimension() -> None:
    torch.manual_seed(0)
    second = nn.RNN(6, 4)
    check_forward(second, (torch.randn(3, 5, 6),), {}, 5, 1)
    with pytest.raises(Unsupported):
        check_forward(second, (torch.randn(5, 3, 6),), {}, 5, 0)  # time is not a batch


def test_outputs_in_dictionaries_and_named_tuples_are_compared() -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
            return {"fine": (x,), "mixed": (x, x - x.mean(0))}

    with pytest.raises(Unsupported):
        check_forward(Wrapped(), (torch.randn(8, 3),), {}, 8, 0)


@pytest.mark.parametrize("joined", [lambda x: torch.cat([x, -x]), lambda x: x[: len(x) // 2], lambda x: x[:0]], ids=["two views", "half", "none"])
def test_a_forward_pass_on_other_rows_than_the_batch_is_refused(joined: Callable[[torch.Tensor], torch.Tensor]) -> None:
    # With two views joined, rows 2b and 2b + 1 are two people's; taken as one sample they would be clipped as one.
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(joined(x))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="one row for each sample"):
        train(Outside(), torch.randn(20, 6))


def test_a_table_looked_up_with_positions_is_accepted_and_with_data_of_another_sample_refused() -> None:
    class Positions(nn.Module):
        def __init__(self, shared: bool) -> None:
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 2)
            self.shared = shared

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            places = tokens[:1] if self.shared else torch.arange(tokens.size(1)).unsqueeze(0)
            return self.head(self.words(tokens) + self.places(places))

    torch.manual_seed(0)
    tokens = torch.randint(9, (20, 5))
    train(Positions(False), tokens)
    with pytest.raises(Unsupported):
        train(Positions(True), tokens)
