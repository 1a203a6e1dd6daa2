"""Mistakes that have voided guarantees elsewhere (docs/pitfalls.md) and are nobody else's test here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, epsilon
from hushgrad.errors import Unsupported

CLIP = 0.7
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "column": lambda out, y: F.mse_loss(out, y, reduction="none").sum(),
    "vector": lambda out, y: F.mse_loss(out.squeeze(1), y.squeeze(1), reduction="none").sum(),
    "reduced": lambda out, y: F.mse_loss(out, y, reduction="sum"),
    "logits": lambda out, y: F.binary_cross_entropy_with_logits(out, torch.sigmoid(y), reduction="sum"),
}


def one_step(module: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Callable[..., torch.Tensor], **options: Any) -> torch.Tensor:
    """The released gradient of one step on all records, without noise to speak of."""
    optimizer = torch.optim.SGD(module.parameters(), 0.0)
    loader: DataLoader[Any] = DataLoader(TensorDataset(x, y), batch_size=len(x))
    options = {"noise_multiplier": 1e-9, "max_grad_norm": CLIP, "loss_reduction": "sum", **options}
    PrivacyEngine(ledger=":memory:").make_private(module=module, optimizer=optimizer, data_loader=loader, **options)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss(module(inputs), targets).backward()
        optimizer.step()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("clipping", ["flat", "per_layer", "automatic", "adaptive"])
def test_one_wild_record_moves_a_step_by_at_most_the_bound(clipping: str, loss: str) -> None:
    """Whatever the clipping and the shape of the loss: one scalar factor for the whole batch, or factors of [B] times losses of [B, 1],
    would let it through."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y = torch.randn(9, 5), torch.randn(9, 1)
    x[0], y[0] = 1e3, -1e5
    with_it, without = (one_step(module, x[i:], y[i:], LOSSES[loss], clipping=clipping) for i in (0, 1))
    moved = float((with_it - without).norm())
    assert moved <= CLIP * (1 + 1e-4)
    assert moved > 0.1 * CLIP  # it is in the batch
    assert float(without.norm()) > 0.1 * CLIP  # and does not silence the others


SPREAD: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": lambda out, y: F.mse_loss(out, y, reduction="sum"),
    "huber": lambda out, y: F.smooth_l1_loss(out, y, reduction="sum"),
    "by hand": lambda out, y: (out - y).square().sum(),
    "the other way": lambda out, y: (y.unsqueeze(1) - out.squeeze(1)).abs().sum(),
    "product": lambda out, y: F.softplus(-out * y).sum(),
    "expanded before": lambda out, y: (out.expand(6, 6).exp() * y).sum(),
    "product of matrices": lambda out, y: (out @ y.unsqueeze(0)).square().sum(),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("loss", SPREAD)
def test_targets_that_broadcast_over_the_batch_are_refused(loss: str) -> None:
    with pytest.raises(Unsupported, match="all pairs"):
        one_step(nn.Linear(5, 1), torch.randn(6, 5), torch.randn(6), SPREAD[loss])


def test_values_that_spread_over_something_else_are_not() -> None:
    classes, weights = torch.randn(1, 4), torch.rand(3)
    one_step(nn.Linear(5, 1), torch.randn(6, 5), torch.randn(6), lambda out, y: (out - classes).square().sum())
    one_step(nn.Linear(5, 3), torch.randn(6, 5), torch.randn(6), lambda out, y: (out * weights - y.unsqueeze(1)).square().sum())
    # Six values of each of six samples, each row beside a number of its own.
    for loss in (
        lambda out, y: (F.normalize(out) * torch.ones(6, 6)).square().sum() + F.mse_loss(out[:, 0], y, reduction="sum"),
        lambda out, y: (out - out.max(1, keepdim=True).values).exp().sum(1).log().sum(),
        lambda out, y: (out / out.norm(dim=1, keepdim=True)).abs().sum(),
    ):
        one_step(nn.Linear(5, 6), torch.randn(6, 5), torch.randn(6), loss)
    one_step(nn.Linear(5, 1), torch.randn(4, 5), torch.randn(4), lambda out, y: (out - classes).square().sum(), unchecked_loss=True)


class Backwards(nn.Module):
    """Layers named in the opposite order of their use, and one table used first and last."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.table = nn.Linear(4, 6, bias=False), nn.Linear(4, 4), nn.Embedding(6, 4)
        self.last.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.middle(self.table(x.long()).mean(1))))


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_layers_in_any_order_and_shared_ones_clip_as_one_sample_alone(clipping: str) -> None:
    torch.manual_seed(1)
    module = Backwards()
    x, y = torch.randint(6, (8, 3)), torch.randint(6, (8,))
    names, parameters = zip(*module.named_parameters())
    layers = [name.rpartition(".")[0] for name in names]
    expected = [torch.zeros_like(p) for p in parameters]
    for i in range(8):
        own = torch.autograd.grad(F.cross_entropy(module(x[i : i + 1]), y[i : i + 1]), parameters)
        for layer in set(layers):
            chosen = [j for j in range(len(own)) if clipping == "flat" or layers[j] == layer]
            bound = CLIP if clipping == "flat" else CLIP / len(set(layers)) ** 0.5
            factor = min(1.0, bound / float(torch.cat([own[j].flatten() for j in chosen]).norm()))
            for j in (j for j in chosen if layers[j] == layer):
                expected[j] += factor * own[j]
    got = one_step(module, x, y, lambda out, t: F.cross_entropy(out, t, reduction="sum"), clipping=clipping)
    assert torch.allclose(got, torch.cat([e.flatten() for e in expected]), rtol=1e-4, atol=1e-6)


def test_the_adaptive_bound_takes_its_noise_from_nowhere_else() -> None:
    """Its count of unclipped samples is a release too: the seed of torch, or a generator that is handed over, must not repeat it."""
    bounds = set()
    for _ in range(4):
        torch.manual_seed(7)
        module, x, y = nn.Linear(5, 1), torch.randn(9, 5), torch.randn(9, 1)
        optimizer = torch.optim.SGD(module.parameters(), 0.0)
        loader: DataLoader[Any] = DataLoader(TensorDataset(x, y), batch_size=9, generator=torch.Generator().manual_seed(7))
        engine = PrivacyEngine(ledger=":memory:")
        engine.make_private(
            module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=CLIP, clipping="adaptive"
        )
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.mse_loss(module(inputs), targets).backward()
            optimizer.step()
        bounds.add(engine.max_grad_norm)
    assert len(bounds) == 4


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("noise", [0.8, 3.0, 30.0])
def test_little_spending_is_not_rounded_to_none(rate: float, noise: float) -> None:
    """An order near 1 whose divergence is tiny must not make the smallest of all epsilons zero."""
    for steps in (1, 1000):
        event = SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
        for delta in (1e-15, 1e-9):
            lower = epsilon(event, delta)[0]
            assert epsilon(event, delta, "rdp")[1] >= lower
            assert lower > 0 or delta > 1e-15
