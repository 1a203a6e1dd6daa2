"""Rows of one sample that cancel each other: products of large numbers must not hide the norm of what is left.

Inner products of activations and backprops in float32 leave a small difference of large numbers here. Were it taken for the norm, a
sample would pass the bound with a gradient far above it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hushgrad._torch import UnnoisedCaptureForTesting as Capture

BATCH, LARGE = 4, 3000.0


def cancelling(shape: tuple[int, ...], positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """inputs: [B, positions, *shape], nearly the same at every position; signs: [positions], summing to zero."""
    inputs = LARGE + torch.randn(BATCH, positions, *shape)
    return inputs, torch.tensor([1.0, -1.0]).repeat(positions // 2)


def clipped(module: nn.Module, x: torch.Tensor, weights: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """The clipped sum for the loss <weights, module(x)>."""
    capture = Capture([module.weight], ["weight"], max_grad_norm, False, True)
    capture.begin_batch(BATCH)
    output = module(x)
    capture.watch([output])
    (output * weights).sum().backward()
    capture.accumulate()
    return capture.finish()[0].double()


def naive(module: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """[B, *weight], float64."""
    twin = copy.deepcopy(module).double()
    gradients = [torch.autograd.grad((twin(x[b : b + 1].double()) * weights.double()).sum(), [twin.weight])[0] for b in range(BATCH)]
    return torch.stack(gradients)


Setting = tuple[nn.Module, torch.Tensor, torch.Tensor]


def linear() -> Setting:
    x, signs = cancelling((96,), 24)  # as few positions as let inner products be the cheaper way
    return nn.Linear(96, 80, bias=False), x, signs.view(24, 1) * torch.randn(80)


def convolution() -> Setting:
    x, signs = cancelling((64,), 4)
    return nn.Conv2d(64, 80, 1, bias=False), x.transpose(1, 2).reshape(BATCH, 64, 2, 2), torch.randn(80, 1, 1) * signs.view(2, 2)


@pytest.mark.parametrize("build", [linear, convolution])
def test_what_is_left_of_cancelling_rows_is_clipped(build: Callable[[], Setting]) -> None:
    torch.manual_seed(0)
    module, x, weights = build()
    gradients = naive(module, x, weights)
    norms = gradients.flatten(1).norm(dim=1)
    bound = float(norms.min()) / 2  # every sample is clipped
    got = clipped(module, x, weights, bound)
    expected = (gradients * (bound / norms).view(-1, *[1] * (gradients.dim() - 1))).sum(0)
    # What the float32 products of the sum itself cost: some 2^-24 of its terms, which are LARGE times what is left of them.
    assert (got - expected).norm() <= 3e-3 * expected.norm()


def test_a_table_that_cancels_the_layer_it_is_tied_to_is_clipped() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 16)
    x = LARGE + torch.randn(BATCH, 3, 16)
    left = torch.randn(BATCH, 3, 16)
    ids = torch.tensor([2, 5, 2]).expand(BATCH, 3)

    gradients = torch.zeros(BATCH, 7, 16, dtype=torch.float64)
    for b in range(BATCH):
        # As float32 has it: x + left is rounded before anything is taken from it.
        gradients[b].index_add_(0, ids[b], (x + left)[b].double() - x[b].double())
    norms = gradients.flatten(1).norm(dim=1)
    bound = float(norms.min()) / 2

    capture = Capture([table.weight], ["weight"], bound, False, True)
    capture.begin_batch(BATCH)
    embedded, logits = table(ids), nn.functional.linear(x, table.weight)
    capture.watch([embedded, logits])
    # The embedding's gradient has x + left in the rows of ids, the layer's has -x there.
    ((embedded * (x + left)).sum() - logits.gather(2, ids.unsqueeze(2)).sum()).backward()
    capture.accumulate()
    got = capture.finish()[0].double()
    expected = (gradients * (bound / norms).view(-1, 1, 1)).sum(0)
    assert (got - expected).norm() <= 3e-3 * expected.norm()
