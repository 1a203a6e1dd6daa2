"""The per-sample losses, against torch on one sample at a time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

import hushgrad  # noqa: E402
from hushgrad.errors import InvalidArgument  # noqa: E402
from hushgrad.losses import cross_entropy  # noqa: E402

SETTINGS = [
    {},
    {"weight": [0.5, 2.0, 1.0, 0.1, 3.0]},
    {"ignore_index": 2},
    {"label_smoothing": 0.3},
    {"weight": [0.5, 2.0, 1.0, 0.1, 3.0], "ignore_index": 1, "label_smoothing": 0.2},
]
SHAPES = [(), (7,), (3, 4)]


def arguments(setting: dict[str, object]) -> dict[str, object]:
    weight = setting.get("weight")
    return {**setting, "weight": None if weight is None else torch.tensor(weight, dtype=torch.float64)}


def batch(shape: tuple[int, ...], size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 5, (size, *shape))
    if shape:
        target[:, 0] = 3  # never ignored, so that torch has a value for every sample
    else:
        target.clamp_(min=3)
    return torch.randn(size, 5, *shape, dtype=torch.float64, requires_grad=True), target


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_is_the_mean_of_torchs_loss_of_every_sample_alone(shape: tuple[int, ...], setting: dict[str, object]) -> None:
    logits, target = batch(shape)
    alone = [F.cross_entropy(logits[i : i + 1], target[i : i + 1], **arguments(setting)) for i in range(6)]
    expected = torch.stack(alone).mean()
    actual = cross_entropy(logits, target, **arguments(setting))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, logits, retain_graph=True), torch.autograd.grad(expected, logits)
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_torch_at_batch_size_one(setting: dict[str, object]) -> None:
    logits, target = batch((7,), size=1)
    torch.testing.assert_close(
        cross_entropy(logits, target, **arguments(setting)), F.cross_entropy(logits, target, **arguments(setting))
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_samples_gradient_does_not_depend_on_the_others(setting: dict[str, object]) -> None:
    logits, target = batch((7,))
    (before,) = torch.autograd.grad(cross_entropy(logits, target, **arguments(setting)), logits)
    others = target.clone()
    others[1:] = setting.get("ignore_index", -100)  # type: ignore[assignment]
    (after,) = torch.autograd.grad(cross_entropy(logits, others, **arguments(setting)), logits)
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)


def test_torchs_own_mean_does_depend_on_them() -> None:
    logits, target = batch((7,))
    (before,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    target[1:] = -100
    (after,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    assert not torch.allclose(before[0], after[0])


def test_probabilities_as_target() -> None:
    logits, _ = batch((7,))
    target = torch.randn(6, 5, 7, dtype=torch.float64).softmax(1)
    weight = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    for settings in ({}, {"weight": weight}, {"label_smoothing": 0.1}):
        alone = [F.cross_entropy(logits[i : i + 1], target[i : i + 1], **settings) for i in range(6)]
        torch.testing.assert_close(cross_entropy(logits, target, **settings), torch.stack(alone).mean())


def test_a_sample_without_a_kept_position_contributes_nothing() -> None:
    logits, target = batch((7,), size=2)
    target[1] = -100
    loss = cross_entropy(logits, target)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], target[:1]) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))


def test_weights_of_zero_contribute_nothing() -> None:
    logits, target = batch((), size=3)
    loss = cross_entropy(logits, target, weight=torch.zeros(5, dtype=torch.float64))
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))


def test_an_empty_batch_is_zero_and_goes_backward() -> None:
    logits = torch.zeros(0, 5, 7, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, 7, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(5), torch.tensor(0)),
        (torch.zeros(2, 7, 5), torch.zeros(2, 7, dtype=torch.long)),
        (torch.zeros(14, 5), torch.zeros(2, 7, dtype=torch.long)),
        (torch.zeros(2, 5), torch.zeros(2)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(logits: torch.Tensor, target: torch.Tensor) -> None:
    with pytest.raises(InvalidArgument, match="Expected"):
        cross_entropy(logits, target)


def test_is_exported_lazily() -> None:
    assert hushgrad.losses.cross_entropy is cross_entropy
