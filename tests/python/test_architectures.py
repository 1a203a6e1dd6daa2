"""Whole architectures through the engine against a float64 loop over samples."""

from __future__ import annotations

import copy

import pytest
import torch
from capture_architectures import ARCHITECTURES
from capture_models import Case
from test_capture import Inputs, Sums, assert_close, clipped_sum, losses, median_norm, sample_gradients, trainable
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine


def batches(case: Case, inputs: list[Inputs]) -> DataLoader[tuple[torch.Tensor, ...]]:
    """One batch for each of the inputs, which are of one size."""
    joined = [torch.cat(parts, 0 if case.batch_first else 1) for parts in zip(*inputs)]
    first = joined if case.batch_first else [x.transpose(0, 1) for x in joined]

    def second(rows: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.stack(column, 0 if case.batch_first else 1) for column in zip(*rows))

    return DataLoader(TensorDataset(*first), batch_size=len(first[0]) // len(inputs), collate_fn=second)


def engine_sums(case: Case, module: nn.Module, inputs: list[Inputs], clip: float) -> list[Sums]:
    optimizer, loader = torch.optim.SGD(trainable(module), 0.0), batches(case, inputs)
    PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=clip, loss_reduction="sum",
        poisson_sampling=False, batch_first=case.batch_first,
    )  # fmt: skip
    sums = []
    for batch in loader:
        losses(module(*batch), loader.batch_size, case.batch_first).sum().backward()  # type: ignore[arg-type]
        optimizer.step()
        sums.append([p.grad for p in trainable(module)])
        optimizer.zero_grad()
    return sums  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steps_apply_the_clipped_sum_of_a_loop_over_samples(name: str) -> None:
    torch.manual_seed(0)
    case = ARCHITECTURES[name]
    module = case.build()
    twin = copy.deepcopy(module)
    # The second batch repeats the structure of the first, with other rows where the model moves rows; then one sample alone.
    for size, count in ((5, 2), (1, 1)):
        inputs = [case.inputs(size) for _ in range(count)]
        gradients = [sample_gradients(case, twin, x, size) for x in inputs]
        clip = median_norm(gradients[0])
        for found, expected in zip(engine_sums(case, copy.deepcopy(twin), inputs, clip), gradients, strict=True):
            assert_close(found, clipped_sum(expected, clip))
