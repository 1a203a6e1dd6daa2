"""Random models: exact where a float64 loop over samples says that samples are apart, refused by name where it says they are not.

``HUSHGRAD_RANDOM_MODELS`` says how many are drawn (300 by default).
"""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from random_models import RandomModel, Shape
from test_capture import assert_close, clipped_sum, losses, median_norm, norm
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.errors import Unsupported

BATCH = 6
COUNT = int(os.environ.get("HUSHGRAD_RANDOM_MODELS", "300"))
FIRST = int(os.environ.get("HUSHGRAD_RANDOM_FIRST", "0"))

MIXED = 0.1
"""A normalisation may undo what a mixing operator before it did, but for its eps."""

Gradient = list[torch.Tensor]


def gradient(model: nn.Module, loss: torch.Tensor) -> Gradient:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters())]


def drawn(seed: int) -> tuple[RandomModel, torch.Tensor]:
    """Sizes are often the batch's, so that a guess by size is a wrong one."""
    torch.manual_seed(seed)
    shape = Shape(length=(3, BATCH, 4)[seed % 3], width=(4, BATCH)[seed // 3 % 2])
    model = RandomModel(seed, shape, length=2 + seed % 5, chance_to_mix=0.15)
    return model, torch.randn(BATCH, shape.length, shape.width)


def alone(model: nn.Module, data: torch.Tensor) -> tuple[list[torch.Tensor], list[Gradient]]:
    """Outputs and gradients of each sample without the others."""
    outputs = [model(row[None]) for row in data]
    return outputs, [gradient(model, losses(y, 1).sum()) for y in outputs]


def mixture(model: nn.Module, data: torch.Tensor, outputs: list[torch.Tensor], gradients: list[Gradient]) -> float:
    """How far outputs of the batch, and gradients of its samples' losses, are from those of samples alone, relative to these."""
    together = model(data)
    apart = torch.cat(outputs)
    far = [float((together - apart).norm() / apart.norm())]
    for b, loss in enumerate(losses(together, BATCH)):
        found = gradient(model, loss)
        far.append(norm([x - y for x, y in zip(found, gradients[b])]) / (1e-6 + norm(gradients[b])))
    return max(far)


def trained(model: nn.Module, data: torch.Tensor, clip: float) -> Gradient:
    optimizer, loader = torch.optim.SGD(model.parameters(), 0.0), DataLoader(TensorDataset(data), batch_size=BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PrivacyEngine(ledger=":memory:").make_private(
            module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=clip, loss_reduction="sum", poisson_sampling=False
        )  # fmt: skip
    for (x,) in loader:
        losses(model(x), BATCH).sum().backward()
        optimizer.step()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_models_are_exact_or_refused(seed: int) -> None:
    model, data = drawn(seed)
    if not list(model.parameters()):
        return
    twin, exact = drawn(seed)[0].double(), data.double()  # not a copy: its steps would use the parameters of the first
    outputs, gradients = alone(twin, exact)
    mixed = mixture(twin, exact, outputs, gradients)
    assert mixed < 1e-6 or model.mixes, f"{model.names}: an operator is in the wrong list"
    clip = median_norm(gradients)
    if clip < 1e-9:  # nothing but rounding
        return
    try:
        found = trained(model, data, clip)
    except Unsupported as refusal:
        assert model.mixes, f"{model.names}: {refusal}"
        return
    if "row by row" in model.names and {"hidden number", "hidden number of rows"} & set(model.names):
        return  # docs/limits.md: a graph of another shape for another number of samples hides what only gradients take from that number
    assert mixed < MIXED, f"{model.names}: mixes, and was not refused"
    if mixed < 1e-6:
        assert_close(found, clipped_sum(gradients, clip), tolerance=1e-4)
