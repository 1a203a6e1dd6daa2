"""Losses that couple the samples after the model's outputs are refused; ordinary ones pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.errors import Unsupported

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Once(torch.autograd.Function):
    """Squares, and has no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def step(loss: Loss, module: nn.Module | None = None, batch: int = 8, loss_reduction: str = "mean", **options: Any) -> None:
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    # Two batches of a known size: the second repeats the first one's graph.
    loader = DataLoader(TensorDataset(torch.randn(2 * batch, 5), torch.arange(2 * batch) % 4), batch_size=batch)
    engine = PrivacyEngine(ledger=":memory:")
    engine.make_private(module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False, loss_reduction=loss_reduction, **options)
    for x, y in loader:
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()


GOOD: dict[str, Loss] = {
    "cross entropy": F.cross_entropy,
    "smoothed": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "sum of squares": lambda z, y: z.square().sum(),
    "linear": lambda z, y: z.sum(),
    "binary with a column": lambda z, y: F.binary_cross_entropy_with_logits(z[:, :1], (y[:, None] > 1).float()),
    "huber": lambda z, y: F.huber_loss(z[:, 0], y.float()),
    "norm of each": lambda z, y: z.norm(dim=1).mean(),
    "several terms": lambda z, y: F.cross_entropy(z, y) + 0.1 * z.square().mean() + z.abs().amax(1).mean(),
    "cosine": lambda z, y: (1 - F.cosine_similarity(z, torch.ones_like(z))).mean(),
    "kl": lambda z, y: F.kl_div(z.log_softmax(1), torch.full_like(z, 0.25), reduction="batchmean"),
    "gaussian": lambda z, y: F.gaussian_nll_loss(z[:, 0], y.float(), z[:, 1].exp()),
    "focal": lambda z, y: ((1 - z.softmax(1).gather(1, y[:, None])) ** 2 * -z.log_softmax(1).gather(1, y[:, None])).mean(),
    "pairs within a sample": lambda z, y: torch.relu(z[:, :1] - z[:, 1:] + 0.1).mean(),
    "weights of each sample": lambda z, y: (F.cross_entropy(z, y, reduction="none") * (1 + y.float())).mean(),
    "divided by the batch": lambda z, y: F.cross_entropy(z, y, reduction="sum") / len(y),
    "multi margin": lambda z, y: F.multi_margin_loss(z, y),
    "multi margin of each": lambda z, y: (F.multi_margin_loss(z, y, reduction="none") + z.square().sum(1)).mean(),
    "several labels": lambda z, y: F.multilabel_margin_loss(z, torch.stack([y, *[torch.full_like(y, -1)] * 3], 1)),
    "connectionist": lambda z, y: F.ctc_loss(
        z.view(len(y), 2, 2).log_softmax(2).transpose(0, 1), torch.ones(len(y), 1, dtype=torch.long), torch.full((len(y),), 2), torch.ones(len(y), dtype=torch.long)
    ),
    "largest class": lambda z, y: torch.relu(1 - z.amax(1)).mean() + z.max(1)[0].abs().mean(),
    "chosen by an index": lambda z, y: -z.log_softmax(1)[torch.arange(len(y)), y].mean(),
    "in place": lambda z, y: (z.clone().mul_(2).sub_(1)).square().mean(),
}
BAD: dict[str, Loss] = {
    "root of the batch mean": lambda z, y: F.mse_loss(z[:, 0], y.float()).sqrt(),
    "logarithm of a sum": lambda z, y: z.exp().sum().log(),
    "batch variance": lambda z, y: z.var(0).sum(),
    "centred": lambda z, y: (z - z.mean(0)).square().sum(),
    "contrastive": lambda z, y: F.cross_entropy(F.normalize(z, dim=1) @ F.normalize(z, dim=1).t(), torch.arange(len(y))),
    "softmax over the batch": lambda z, y: -(z[:, 0].log_softmax(0) * y).sum(),
    "neighbours": lambda z, y: (z * z.roll(1, 0)).sum(),
    "ranking": lambda z, y: torch.relu(z[:, None, 0] - z[None, :, 0]).square().sum(),
    "correlation": lambda z, y: torch.corrcoef(z.t()).square().sum(),
    "norm of the batch": lambda z, y: z.norm(),
    "hinge on pairs": lambda z, y: torch.relu(z[:, None, 0] - z[None, :, 0] + 0.5).mean(),
    "larger of two samples": lambda z, y: torch.maximum(z[:, :1], z[:, 0]).mean(),
    "flooding": lambda z, y: (F.cross_entropy(z, y) - 0.5).abs() + 0.5,
    "clamped mean": lambda z, y: F.cross_entropy(z, y).clamp(min=0.1),
    "largest loss": lambda z, y: F.cross_entropy(z, y, reduction="none").max(),
    "largest losses": lambda z, y: F.cross_entropy(z, y, reduction="none").topk(3)[0].mean(),
    "median": lambda z, y: z[:, 0].median(),
    "sorted": lambda z, y: (z[:, 0].sort()[0] * torch.arange(len(y))).mean(),
    "mean of those above": lambda z, y: (lambda each: each[each > each.mean()].mean())(F.cross_entropy(z, y, reduction="none")),
    "multi margin of centred": lambda z, y: F.multi_margin_loss(z - z.mean(0), y),
    "root of a multi margin": lambda z, y: F.multi_margin_loss(z, y).sqrt(),
    "multi margins of others": lambda z, y: (F.multi_margin_loss(z, y, reduction="none") * z.flip(0)[:, 0]).mean(),
    "one pair in the middle": lambda z, y: F.cross_entropy(z, y) + 1e-3 * (z[3] * z[6]).sum(),
    "class weights": lambda z, y: F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "ignored targets": lambda z, y: F.cross_entropy(z, torch.where(torch.arange(len(y)) == 2, -100, y)),
    "ignored class": lambda z, y: F.nll_loss(z.log_softmax(1), y, ignore_index=1),
}


@pytest.mark.parametrize("name", GOOD)
def test_losses_of_one_sample_each_pass(name: str) -> None:
    step(GOOD[name], loss_reduction="sum" if name == "sum of squares" else "mean")


@pytest.mark.parametrize("name", BAD)
def test_losses_that_couple_samples_are_refused(name: str) -> None:
    with pytest.raises(Unsupported, match="Expected a loss that is the mean or sum of one loss a sample"):
        step(BAD[name])


class Tokens(nn.Module):
    """[B, 5] -> [B, 5, 4]"""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.lift(x[..., None]))


def token_targets(y: torch.Tensor, kept: Callable[[int], int]) -> torch.Tensor:
    targets = y[:, None].expand(-1, 5).clone()
    for b in range(len(y)):
        targets[b, kept(b) :] = -100
    return targets


@pytest.mark.parametrize("flat", [True, False])
def test_as_many_kept_tokens_in_each_sample_are_no_coupling(flat: bool) -> None:
    def loss(z: torch.Tensor, y: torch.Tensor, kept: Callable[[int], int]) -> torch.Tensor:
        targets = token_targets(y, kept)
        return F.cross_entropy(z.flatten(0, 1), targets.flatten()) if flat else F.cross_entropy(z.transpose(1, 2), targets)

    step(lambda z, y: loss(z, y, lambda b: 4), Tokens())
    with pytest.raises(Unsupported, match="kept targets of all samples"):
        step(lambda z, y: loss(z, y, lambda b: 5 - b % 2), Tokens())


def test_a_loss_without_second_derivative_needs_a_word() -> None:
    with pytest.raises(Unsupported, match="unchecked_loss=True"):
        step(lambda z, y: Once.apply(z).mean())
    step(lambda z, y: Once.apply(z).mean(), unchecked_loss=True)
    with pytest.raises(Unsupported, match="couples the samples"):
        step(BAD["centred"], unchecked_loss=True)


class WithPenalty(nn.Module):
    """Returns a penalty that the batch's hidden states give together, beside the per-sample outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 6), nn.Linear(6, 4)
        self.penalty = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.layer(x))
        self.penalty = hidden.mean(0).square().sum()
        return self.head(hidden)


def test_a_loss_that_passes_by_the_outputs_is_refused() -> None:
    module = WithPenalty()
    with pytest.raises(Unsupported, match="beside its per-sample outputs"):
        step(lambda z, y: F.cross_entropy(z, y) + module.penalty, module)  # the first batch's forward check overwrites the attribute


def test_losses_of_several_forward_passes() -> None:
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))

    def other(y: torch.Tensor) -> torch.Tensor:
        return module(torch.randn(len(y), 5))

    step(lambda z, y: F.triplet_margin_loss(z, other(y), other(y)), module)
    with pytest.raises(Unsupported, match="couples the samples"):
        step(lambda z, y: (z * other(y).flip(0)).sum(), module)


def test_a_refused_loss_leaves_the_parameters_alone() -> None:
    module = nn.Linear(5, 4)
    before = module.weight.detach().clone()
    with pytest.raises(Unsupported):
        step(BAD["contrastive"], module)
    assert torch.equal(module.weight, before) and module.weight.grad is None


def test_other_models_train_as_before() -> None:
    step(GOOD["cross entropy"])
    other = nn.Linear(5, 4)
    BAD["contrastive"](other(torch.randn(8, 5)), torch.arange(8) % 4).backward()
    assert other.weight.grad is not None
