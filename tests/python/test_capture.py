"""Graph capture: the clipped sum against a float64 loop over samples, and what must be refused."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from capture_models import Case
from capture_networks import CASES
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad._torch import UnnoisedCaptureForTesting as Capture
from hushgrad.errors import InvalidState, Unsupported

Sums = list[torch.Tensor]
Inputs = tuple[torch.Tensor, ...]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def capture_of(module: nn.Module, clip: float, mean: bool = True, batch_first: bool = True, **options: Any) -> Capture:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    return Capture([p for _, p in named], [name for name, _ in named], clip, mean, batch_first, **options)


def losses(output: torch.Tensor, batch: int, batch_first: bool = True) -> torch.Tensor:
    """[B]: a quadratic with different weights, so that no gradient vanishes by symmetry."""
    rows = (output if batch_first else output.transpose(0, 1)).reshape(batch, -1)
    return (rows * torch.linspace(0.3, 1.7, rows.size(1), dtype=rows.dtype)).sum(1) + 0.5 * rows.square().sum(1)


def sample_gradients(case: Case, module: nn.Module, inputs: Inputs, batch: int) -> list[Sums]:
    """The naive twin: [sample][parameter], each sample alone through a float64 copy of the model."""
    twin = copy.deepcopy(module).double()
    parameters = trainable(twin)
    gradients = []
    for b in range(batch):
        alone = [x.narrow(0 if case.batch_first else 1, b, 1) for x in inputs]
        alone = [x.double() if x.is_floating_point() else x for x in alone]
        loss = losses(twin(*alone), 1, case.batch_first).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients.append([torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)])
    return gradients


def norm(gradient: Sums) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradient))


def clipped_sum(gradients: list[Sums], clip: float) -> Sums:
    """Samples whose norm is not finite are left out."""
    kept = [(g, min(1.0, clip / n) if n > 0 else 1.0) for g in gradients if math.isfinite(n := norm(g))]
    return [sum(factor * g[i].double() for g, factor in kept) for i in range(len(gradients[0]))]  # type: ignore[misc]


def median_norm(gradients: list[Sums]) -> float:
    """Clips about half of the samples."""
    return sorted(norm(g) for g in gradients)[len(gradients) // 2]


def distance(x: Sums, y: Sums) -> float:
    return norm([a.double() - b.double() for a, b in zip(x, y, strict=True)])


def assert_close(got: Sums, expected: Sums, tolerance: float = 1e-5) -> None:
    assert all(g.dtype == torch.float32 and g.shape == e.shape for g, e in zip(got, expected, strict=True))
    assert distance(got, expected) <= tolerance * norm(expected)


def run(capture: Capture, module: nn.Module, inputs: Inputs, batch: int, case: Case, mean: bool = True) -> Sums:
    capture.begin_batch(batch)
    output = module(*inputs)
    capture.watch([output])
    each = losses(output, batch, case.batch_first)
    (each.mean() if mean else each.sum()).backward()
    capture.accumulate()
    return capture.finish()


@pytest.mark.parametrize("sizes", [(7, 2, 1), (1, 2, 7)], ids=["shrinking", "growing"])
@pytest.mark.parametrize("name", CASES)
def test_clipped_sum_is_that_of_a_loop_over_samples(name: str, sizes: tuple[int, ...]) -> None:
    # The sizes share one capture: what was learnt of the graph from one batch serves the next.
    torch.manual_seed(0)
    case = CASES[name]
    module = case.build()
    batches = {size: case.inputs(size) for size in sizes}
    gradients = {size: sample_gradients(case, module, batches[size], size) for size in sizes}
    clip = median_norm(gradients[7])
    capture = capture_of(module, clip, batch_first=case.batch_first, forward_is_checked=case.forward_is_checked)
    for size in (*sizes, 7):
        assert_close(run(capture, module, batches[size], size, case), clipped_sum(gradients[size], clip))
        assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("name", ["linear_3d_bias", "conv2d", "tied_embedding", "lora", "gru"])
def test_sum_reduction(name: str) -> None:
    torch.manual_seed(1)
    case = CASES[name]
    module, inputs = case.build(), case.inputs(5)
    gradients = sample_gradients(case, module, inputs, 5)
    clip = median_norm(gradients)
    assert_close(run(capture_of(module, clip, mean=False), module, inputs, 5, case, mean=False), clipped_sum(gradients, clip))


SIMPLE = CASES["linear_2d_bias"]


def simple(batch: int = 6, seed: int = 0) -> tuple[nn.Module, Inputs, list[Sums], float]:
    torch.manual_seed(seed)
    module, inputs = SIMPLE.build(), SIMPLE.inputs(batch)
    gradients = sample_gradients(SIMPLE, module, inputs, batch)
    return module, inputs, gradients, median_norm(gradients)


# More than one pass over the same batch.


def added(x: list[Sums], y: list[Sums], weight: float = 1.0) -> list[Sums]:
    return [[a + weight * b for a, b in zip(g, h)] for g, h in zip(x, y)]


@pytest.mark.parametrize("backwards", [1, 2])
def test_several_forward_passes_are_one_gradient(backwards: int) -> None:
    module, inputs, first, _ = simple()
    second = sample_gradients(SIMPLE, module, (inputs[0] * -2,), 6)
    both = added(first, second)
    clip = median_norm(both)
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    outputs = [module(inputs[0]), module(inputs[0] * -2)]
    for output in outputs:
        capture.watch([output])
    means = [losses(output, 6).mean() for output in outputs]
    if backwards == 1:
        (means[0] + means[1]).backward()
    else:
        means[0].backward()
        means[1].backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(both, clip))


def test_two_backward_passes_through_one_graph_add_up() -> None:
    module, inputs, gradients, clip = simple()
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    output = module(*inputs)
    capture.watch([output])
    loss = losses(output, 6).mean()
    loss.backward(retain_graph=True)
    (2 * loss).backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(added(gradients, gradients, 2.0), clip))


def test_a_model_applied_to_its_own_output() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
    twice = Case(lambda: module, SIMPLE.inputs)
    x = torch.randn(6, 5)

    class Twice(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(x))

    gradients = sample_gradients(twice, Twice(module), (x,), 6)
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    middle = module(x)
    capture.watch([middle])
    output = module(middle)
    capture.watch([output])
    losses(output, 6).mean().backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip))


def test_several_outputs_in_any_order() -> None:
    module, inputs, gradients, clip = simple()
    for order in (slice(None), slice(None, None, -1)):
        capture = capture_of(module, clip)
        capture.begin_batch(6)
        hidden = module[1](module[0](*inputs))  # type: ignore[index]
        outputs = [module[2](hidden), hidden]  # type: ignore[index]
        capture.watch(outputs[order])
        losses(outputs[0], 6).mean().backward()
        capture.accumulate()
        assert_close(capture.finish(), clipped_sum(gradients, clip))


def test_physical_batches_add_up_to_one_logical_batch() -> None:
    module, inputs, gradients, clip = simple(7)
    capture = capture_of(module, clip)
    for part in (slice(0, 3), slice(3, 3), slice(3, 7)):
        x = inputs[0][part]
        capture.begin_batch(x.size(0))
        output = module(x)
        capture.watch([output])
        losses(output, x.size(0)).mean().backward() if x.size(0) else output.sum().backward()
        capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip))


# Shapes and types.


@pytest.mark.parametrize("column", [False, True], ids=["B", "B1"])
def test_losses_of_one_value_a_sample(column: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y = torch.randn(6, 6), torch.randint(2, (6, 1)).float()
    x[2] *= 1e3  # an outlier, which a loss that broadcasts to B x B would spread
    gradients = []
    for b in range(6):
        loss = F.binary_cross_entropy_with_logits(module(x[b : b + 1]), y[b : b + 1])
        gradients.append(list(torch.autograd.grad(loss, trainable(module))))
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    output = module(x)
    capture.watch([output])
    if column:
        F.binary_cross_entropy_with_logits(output, y).backward()
    else:
        F.binary_cross_entropy_with_logits(output.squeeze(1), y.squeeze(1), reduction="none").mean().backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip))


def test_token_losses_of_flattened_logits() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9))
    tokens, targets = torch.randint(9, (4, 3)), torch.randint(9, (4, 3))
    gradients = [
        list(torch.autograd.grad(F.cross_entropy(module(tokens[b]), targets[b]), trainable(module))) for b in range(4)
    ]
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    capture.begin_batch(4)
    output = module(tokens)
    capture.watch([output])
    F.cross_entropy(output.flatten(0, 1), targets.flatten()).backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip))


def test_frozen_parameters_get_nothing_and_cost_nothing() -> None:
    torch.manual_seed(0)
    module = SIMPLE.build()
    module[0].weight.requires_grad_(False)  # type: ignore[index,union-attr]
    module[2].bias.requires_grad_(False)  # type: ignore[index,union-attr]
    inputs = SIMPLE.inputs(6)
    gradients = sample_gradients(SIMPLE, module, inputs, 6)
    clip = median_norm(gradients)
    sums = run(capture_of(module, clip), module, inputs, 6, SIMPLE)
    assert len(sums) == 2
    assert_close(sums, clipped_sum(gradients, clip))
    assert all(p.grad is None for p in module.parameters())


def test_inputs_that_are_not_contiguous() -> None:
    torch.manual_seed(0)
    for name, x in (
        ("linear_3d_bias", torch.randn(7, 5, 6).permute(2, 1, 0)),
        ("linear_2d_bias", torch.randn(6, 14)[:, ::2]),
        ("linear_2d_bias", torch.randn(1, 7).expand(6, 7)),
        ("conv2d", torch.randn(9, 6, 11, 4).permute(1, 3, 2, 0)),
    ):
        case = CASES[name]
        module = case.build()
        gradients = sample_gradients(case, module, (x,), 6)
        clip = median_norm(gradients)
        assert_close(run(capture_of(module, clip), module, (x,), 6, case), clipped_sum(gradients, clip))


@pytest.mark.parametrize("name", ["conv2d_stride", "conv2d_groups", "conv_transpose2d", "group_norm", "u_net", "residual_group_norm"])
def test_channels_last(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = tuple(x.to(memory_format=torch.channels_last) for x in case.inputs(6))
    gradients = sample_gradients(case, module, inputs, 6)
    clip = median_norm(gradients)
    assert_close(run(capture_of(module, clip), module, inputs, 6, case), clipped_sum(gradients, clip))


HALF = ["linear_3d_bias", "conv2d", "embedding_mean", "layer_norm", "group_norm", "positional_table", "attention", "tied_embedding"]


def same_graph_gradients(each: torch.Tensor, parameters: list[nn.Parameter]) -> list[Sums]:
    """The twin where precision or randomness is part of the forward pass: the same graph, one sample's loss at a time."""
    found = (torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in each)
    return [[torch.zeros_like(p) if g is None else g for g, p in zip(row, parameters)] for row in found]


@pytest.mark.parametrize("name", HALF)
def test_autocast(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module, inputs = case.build(), case.inputs(6)
    with torch.autocast("cpu", torch.bfloat16):
        gradients = same_graph_gradients(losses(module(*inputs).float(), 6), trainable(module))
        clip = median_norm(gradients)
        capture = capture_of(module, clip)
        capture.begin_batch(6)
        output = module(*inputs)
        capture.watch([output])
    losses(output.float(), 6).mean().backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip), 1e-2)


@pytest.mark.parametrize("name", HALF)
def test_parameters_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.build().bfloat16()
    inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in case.inputs(6))
    gradients = same_graph_gradients(losses(module(*inputs).float(), 6), trainable(module))
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    output = module(*inputs)
    capture.watch([output])
    losses(output.float(), 6).mean().backward()
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip), 1e-2)


@pytest.mark.parametrize("name", HALF)
def test_norms_of_half_precision_gradients_are_taken_in_float(name: str) -> None:
    # A norm in bfloat16 is off by up to 2^-9; a clipped sample would then be longer than the clip norm by 2e-3.
    torch.manual_seed(3)
    case = CASES[name]
    module = case.build().bfloat16()
    capture = capture_of(module, 0.1)
    for _ in range(4):
        inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in case.inputs(1))
        assert norm(run(capture, module, inputs, 1, case)) == pytest.approx(0.1, rel=1e-5)


def test_dropout_is_part_of_the_sample() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)), torch.randn(6, 6)
    torch.manual_seed(5)
    gradients = same_graph_gradients(losses(module(x), 6), trainable(module))
    clip = median_norm(gradients)
    torch.manual_seed(5)
    assert_close(run(capture_of(module, clip), module, (x,), 6, SIMPLE), clipped_sum(gradients, clip))


class Recomputed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(7, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.conv, self.groups, self.norm = nn.Conv1d(1, 2, 3, padding=1), nn.GroupNorm(2, 2), nn.LayerNorm(6)
        self.scale = nn.Parameter(torch.rand(6))
        self.reentrant = reentrant

    def block(self, h: torch.Tensor) -> torch.Tensor:
        h = self.groups(self.conv(h.unsqueeze(1))).sum(1)
        return torch.tanh(self.second(self.norm(torch.tanh(h)))) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(checkpoint(self.block, self.first(x), use_reentrant=self.reentrant))


def test_activation_checkpointing() -> None:
    torch.manual_seed(0)
    module, x = Recomputed(False), torch.randn(6, 7)
    gradients = sample_gradients(SIMPLE, module, (x,), 6)
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    for _ in range(2):
        assert_close(run(capture, module, (x,), 6, SIMPLE), clipped_sum(gradients, clip))


# Samples that do not behave.


# Operators that give no sample's gradient without touching what the others left behind.
ENTANGLED = ("bilinear", "addcmul", "lerp", "pow_and_divide", "addmm")


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", CASES)
def test_a_sample_that_is_not_finite_contributes_zero(name: str, poison: float) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module, inputs = case.build(), case.inputs(4)
    gradients = sample_gradients(case, module, inputs, 4)
    clip = median_norm(gradients)
    capture = capture_of(module, clip, batch_first=case.batch_first, forward_is_checked=case.forward_is_checked)
    expected = clipped_sum(gradients[:2] + gradients[3:], clip)

    # In the loss ...
    capture.begin_batch(4)
    output = module(*inputs)
    capture.watch([output])
    weight = torch.ones(4, dtype=output.dtype)
    weight[2] = poison
    (losses(output, 4, case.batch_first) * weight).mean().backward()
    capture.accumulate()
    assert_close(capture.finish(), expected)
    # ... and in the input.
    if all(x.is_floating_point() for x in inputs):
        for x in inputs:
            x.select(0 if case.batch_first else 1, 2).fill_(poison)
        if name in ENTANGLED:
            with pytest.raises(RuntimeError, match="Expected finite values at"):
                run(capture, module, inputs, 4, case)
            assert_no_gradient(module, capture)
        else:
            assert_close(run(capture, module, inputs, 4, case), expected)


@pytest.mark.parametrize("name", ["linear_3d_bias", "conv2d", "positional_table", "gru", "prelu"])
def test_the_first_batch_may_hold_samples_that_are_not_finite(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module, inputs = case.build(), case.inputs(5)
    gradients = sample_gradients(case, module, inputs, 5)
    clip = median_norm(gradients)
    inputs[0][1] = math.nan
    inputs[0][3] = math.inf
    capture = capture_of(module, clip)
    for _ in range(2):
        assert_close(run(capture, module, inputs, 5, case), clipped_sum([gradients[i] for i in (0, 2, 4)], clip))


@pytest.mark.parametrize("name", ["linear_2d_bias", "conv2d", "lstm", "attention", "embedding_mean", "weight_norm", "lora", "lookup"])
def test_an_empty_batch_is_a_sum_of_zeros(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.build()
    capture = capture_of(module, 1.0)
    empty, some = case.inputs(0), case.inputs(3)
    for inputs, size in ((empty, 0), (some, 3), (empty, 0)):
        capture.begin_batch(size)
        output = module(*inputs)
        capture.watch([output])
        output.square().mean().backward()  # of nothing: NaN
        capture.accumulate()
        sums = capture.finish()
        assert [s.shape for s in sums] == [p.shape for p in trainable(module)]
        assert (norm(sums) == 0) == (size == 0)
        assert all(p.grad is None for p in module.parameters())
    capture.begin_batch(0)  # a loop that skips empty batches
    capture.accumulate()
    assert norm(capture.finish()) == 0


@pytest.mark.parametrize("clip", [0.1, 10.0])
@pytest.mark.parametrize("name", ["linear_2d_bias", "conv2d", "embedding_mean", "transformer_layer", "tied_embedding", "gated_low_rank"])
def test_one_outlier_contributes_at_most_the_clip_norm(name: str, clip: float) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module, inputs = case.build(), case.inputs(5)
    capture = capture_of(module, clip)
    weight = torch.ones(5)
    contributions = []
    for scale in (0.0, 1e6):
        weight[1] = scale
        capture.begin_batch(5)
        output = module(*inputs)
        capture.watch([output])
        (losses(output, 5) * weight).mean().backward()
        capture.accumulate()
        contributions.append(capture.finish())
    assert distance(*contributions) == pytest.approx(clip, rel=1e-4)


@pytest.mark.parametrize("name", ["linear_2d_bias", "conv2d", "gru", "tied_embedding", "attention", "gated_low_rank", "residual_group_norm"])
def test_neighbours_differ_by_at_most_the_clip_norm(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.build()
    clip = median_norm(sample_gradients(case, module, (sampled := case.inputs(6)), 6))
    capture = capture_of(module, clip)
    furthest = 0.0
    for round in range(10):
        inputs = case.inputs(2 + round % 5) if round else sampled
        size = inputs[0].size(0)
        if round % 2 and inputs[0].is_floating_point():
            inputs[0][:1] *= 100
        whole = run(capture, module, inputs, size, case)
        left = run(capture, module, tuple(x[1:] for x in inputs), size - 1, case)
        furthest = max(furthest, distance(whole, left))
    assert 0.5 * clip < furthest <= clip * (1 + 1e-5)


# What is refused leaves no gradient behind.


def assert_no_gradient(module: nn.Module, capture: Capture | None = None) -> None:
    """The capture is passed to keep it alive: its end takes the guards away."""
    assert all(p.grad is None for p in module.parameters())


def started(batch: int = 6) -> tuple[nn.Module, torch.Tensor, Capture, torch.Tensor]:
    module, inputs, _, clip = simple(batch)
    capture = capture_of(module, clip)
    capture.begin_batch(batch)
    output = module(*inputs)
    capture.watch([output])
    return module, inputs[0], capture, output


ORDINARY = "pass per-sample clipping, received an ordinary one"


def test_a_penalty_on_weights_in_the_loss_is_refused() -> None:
    module, _, capture, output = started()
    with pytest.raises(RuntimeError, match=ORDINARY):
        (losses(output, 6).mean() + module[0].weight.square().sum()).backward()  # type: ignore[index,operator,union-attr]
    assert_no_gradient(module, capture)


def test_a_submodule_called_directly_is_refused() -> None:
    module, x, capture, _ = started()
    with pytest.raises(RuntimeError, match=ORDINARY):
        module[0](x).sum().backward()  # type: ignore[index]
    assert_no_gradient(module, capture)


def test_a_forward_pass_that_was_not_watched_is_refused() -> None:
    module, x, capture, output = started()
    with pytest.raises(RuntimeError, match=ORDINARY):
        (losses(output, 6).mean() + module(x).sum()).backward()
    assert_no_gradient(module, capture)


def test_a_refused_backward_pass_can_be_discarded() -> None:
    module, x, capture, output = started()
    with pytest.raises(RuntimeError, match=ORDINARY):
        (losses(output, 6).mean() + module(x).sum()).backward()
    capture.discard(True)
    gradients = sample_gradients(SIMPLE, module, (x,), 6)
    clip = median_norm(gradients)
    assert_close(run(capture, module, (x,), 6, SIMPLE), clipped_sum(gradients, clip))


def test_reentrant_checkpointing_is_refused() -> None:
    torch.manual_seed(0)
    module, x = Recomputed(True), torch.randn(6, 7)
    capture = capture_of(module, 1.0)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        run(capture, module, (x,), 6, SIMPLE)
    assert_no_gradient(module, capture)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_create_graph_is_refused() -> None:
    module, _, capture, output = started()
    with pytest.raises(RuntimeError, match="create_graph=False"):
        losses(output, 6).mean().backward(create_graph=True)
    assert_no_gradient(module, capture)


def test_gradients_of_inputs_are_free_and_those_of_parameters_out_of_reach() -> None:
    torch.manual_seed(0)
    module, (x,) = SIMPLE.build(), SIMPLE.inputs(6)
    gradients = sample_gradients(SIMPLE, module, (x,), 6)
    clip = median_norm(gradients)
    expected = torch.autograd.grad(losses(module(x.requires_grad_()), 6).mean(), x)[0]
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    output = module(x)
    capture.watch([output])
    loss = losses(output, 6).mean()
    torch.testing.assert_close(torch.autograd.grad(loss, x, retain_graph=True)[0], expected)
    found = torch.autograd.grad(loss, trainable(module), retain_graph=True, allow_unused=True)
    assert all(g is None for g in found)
    loss.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected)
    capture.accumulate()
    assert_close(capture.finish(), clipped_sum(gradients, clip))


def test_a_batch_without_a_backward_pass_is_refused() -> None:
    _, _, capture, _ = started()
    with pytest.raises(InvalidState, match="backward"):
        capture.accumulate()


def test_a_new_batch_over_gradients_that_wait_is_refused() -> None:
    _, _, capture, output = started()
    losses(output, 6).mean().backward()
    with pytest.raises(InvalidState, match="BatchMemoryManager"):
        capture.begin_batch(6)


def test_a_batch_of_another_size_than_announced_is_refused() -> None:
    module, inputs, _, clip = simple(6)
    capture = capture_of(module, clip)
    capture.begin_batch(5)
    with pytest.raises(Unsupported):
        capture.watch([module(*inputs)])


def test_a_loss_summed_inside_of_the_model_is_refused() -> None:
    module, inputs, _, clip = simple(6)
    capture = capture_of(module, clip)
    capture.begin_batch(6)
    with pytest.raises(Unsupported, match="per-sample outputs"):
        capture.watch([losses(module(*inputs), 6).mean()])


@pytest.mark.parametrize("through", ["loss", "hidden state"])
def test_the_graph_of_an_earlier_batch_is_refused(through: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
    capture = capture_of(module, 1.0)
    capture.begin_batch(6)
    state = module(torch.randn(6, 5))
    capture.watch([state])
    old = losses(state, 6).mean()
    old.backward(retain_graph=True)
    capture.accumulate()
    capture.finish()
    with pytest.raises(RuntimeError, match="earlier batch"):
        old.backward(retain_graph=True)  # between two batches
    capture.begin_batch(6)
    output = module(torch.randn(6, 5) + (state if through == "hidden state" else 0))
    capture.watch([output])
    with pytest.raises(RuntimeError, match="earlier batch"):
        (losses(output, 6).mean() + (old if through == "loss" else 0)).backward()
    assert_no_gradient(module, capture)
    with pytest.raises(InvalidState, match="backward"):
        capture.accumulate()


def mixing(operation: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(operation(torch.tanh(self.first(x))))

    return Mixing()


@pytest.mark.parametrize("batch", [2, 7, 16])
@pytest.mark.parametrize(
    ("operator", "operation"),
    [
        ("SubBackward0", lambda h: h - h.mean(0)),
        ("SoftmaxBackward0", lambda h: F.softmax(h, 0)),
        ("RollBackward0", lambda h: h.roll(1, 0)),
        ("SortBackward0", lambda h: h.sort(0)[0]),
        ("MmBackward0", lambda h: (h @ h.t()) @ h),
        ("CumsumBackward0", lambda h: h.cumsum(0)),
        ("FlipBackward0", lambda h: h.flip(0)),
        ("NativeBatchNormBackward0", lambda h: F.batch_norm(h, None, None, training=True)),
    ],
)
def test_operators_that_mix_samples_are_refused_by_name(operator: str, operation: Callable[..., torch.Tensor], batch: int) -> None:
    torch.manual_seed(0)
    module = mixing(operation)
    capture = capture_of(module, 1.0)
    capture.begin_batch(batch)
    with pytest.raises(Unsupported, match=f"{operator} mixes the samples"):
        capture.watch([module(torch.randn(batch, 6))])


def test_mixing_that_a_first_batch_of_one_cannot_show_is_refused_later() -> None:
    torch.manual_seed(0)
    module = mixing(lambda h: h - h.mean(0))
    capture = capture_of(module, 1.0)
    capture.begin_batch(1)
    capture.watch([module(torch.randn(1, 6))])
    capture.discard(True)
    capture.begin_batch(4)
    with pytest.raises(Unsupported, match="mixes"):
        capture.watch([module(torch.randn(4, 6))])


# Models of other libraries.


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_hugging_face_models(kind: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: BERT and GPT-2 are not tested")
    import transformers

    torch.manual_seed(0)
    if kind == "bert":
        config = transformers.BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=12, num_labels=3
        )
        inner: nn.Module = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=12, bos_token_id=1, eos_token_id=2)
        inner = transformers.GPT2LMHeadModel(config)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=tokens).logits  # type: ignore[no-any-return]

    # Through the engine: position tables are looked up without a batch, which takes its forward check to allow.
    module = Logits().eval()
    case = Case(lambda: module, lambda b: (torch.randint(40, (b, 8)),))
    inputs = case.inputs(6)
    gradients = sample_gradients(case, module, inputs, 6)
    clip = median_norm(gradients)
    optimizer, loader = torch.optim.SGD(module.parameters(), 0.0), DataLoader(TensorDataset(*inputs), batch_size=6)
    PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=clip, loss_reduction="sum", poisson_sampling=False
    )  # fmt: skip
    module.training = True  # without its dropout
    for (tokens,) in loader:
        losses(module(tokens), 6).sum().backward()
        optimizer.step()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
    assert_close(found, clipped_sum(gradients, clip))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0])


def test_packed_sequences_of_any_lengths() -> None:
    torch.manual_seed(0)
    module = Packed()
    capture = capture_of(module, 1.0, forward_is_checked=True)
    for lengths in ([4, 4, 4], [4, 2, 3], [2, 4, 1], [1, 1, 4], [4, 3, 2], [4, 4, 4]):
        x = torch.randn(3, 4, 6)
        alone = [module(x[b : b + 1, :n], torch.tensor([n])) for b, n in enumerate(lengths)]
        gradients = [list(torch.autograd.grad(tokens.square().sum(), trainable(module))) for tokens in alone]
        capture.begin_batch(3)
        output = module(x, torch.tensor(lengths))
        capture.watch([output])
        kept = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
        (output.square().sum(2) * kept).sum(1).mean().backward()
        capture.accumulate()
        assert_close(capture.finish(), clipped_sum(gradients, 1.0))


class Routed(nn.Module):
    """The two layers see the tokens that are greater or less than zero, however many each sample has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, 1)
        result = tokens.new_zeros(len(tokens), 2)
        for layer, chosen in zip(self.layers, (tokens[:, 0] > 0, tokens[:, 0] < 0)):
            rows = chosen.nonzero().squeeze(1)
            result = result.index_copy(0, rows, torch.tanh(layer(tokens[rows])))
        return result.view(len(x), -1)


def test_rows_chosen_by_an_index_are_not_taken_for_those_of_an_earlier_batch() -> None:
    # In the first batch each layer sees as many tokens of every sample, as if rows were regular; in the second they are the
    # first sample's and the second's.
    torch.manual_seed(0)
    module = Routed()
    case = Case(lambda: module, lambda b: ())
    capture = capture_of(module, 0.3, forward_is_checked=True)
    for signs in ([[1, 1, -1, -1], [1, 1, -1, -1]], [[1, 1, 1, 1], [-1, -1, -1, -1]], [[1, -1, -1, -1], [1, 1, 1, -1]], [[1, 1, 1, 1], [1, 1, 1, 1]]):
        x = torch.rand(2, 4).add(0.1) * torch.tensor(signs)
        expected = clipped_sum(sample_gradients(case, module, (x,), 2), 0.3)
        assert_close(run(capture, module, (x,), 2, case), expected)


def test_rows_in_another_order_are_refused_without_a_forward_check() -> None:
    with pytest.raises(Unsupported, match="IndexSelectBackward0 mixes|mixes the samples"):
        run(capture_of(module := Routed(), 1.0), module, (torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]]),), 2, SIMPLE)


def test_states_of_recurrent_layers_are_outputs_too() -> None:
    torch.manual_seed(0)
    module, x = nn.LSTM(6, 5, num_layers=2, batch_first=True), torch.randn(4, 3, 6)

    def loss_of(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        output, (h, c) = net(inputs)
        return output.square().sum((1, 2)) + h.tanh().sum((0, 2)) + c.square().sum((0, 2))

    twin = copy.deepcopy(module).double()
    gradients = [list(torch.autograd.grad(loss_of(twin, row[None].double()).sum(), list(twin.parameters()))) for row in x]
    clip = median_norm(gradients)
    capture = capture_of(module, clip)
    for _ in range(2):
        capture.begin_batch(4)
        output, (h, c) = module(x)
        capture.watch([output, h, c])
        loss = (output.square().sum((1, 2)) + h.tanh().sum((0, 2)) + c.square().sum((0, 2))).mean()
        capture.check_loss([loss], [torch.ones(())])
        loss.backward()
        capture.accumulate()
        assert_close(capture.finish(), clipped_sum(gradients, clip))
