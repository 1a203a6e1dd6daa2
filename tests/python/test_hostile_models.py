"""Odd models and loops through the engine: exact against a float64 loop over samples, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from capture_models import floats
from hostile_models import HOSTILE, Model, Odd, layers
from test_capture import assert_close, clipped_sum, losses, median_norm
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.errors import InvalidArgument, Unsupported

BATCH = 6

Loop = Callable[[nn.Module, torch.optim.Optimizer, tuple[torch.Tensor, ...]], None]


def plain(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
    losses(model(*batch), BATCH).sum().backward()
    optimizer.step()


def train(model: nn.Module, batch: tuple[torch.Tensor, ...], clip: float = 1.0, loop: Loop = plain, change: Callable[[Any], object] = lambda m: None) -> None:
    """One step without noise; ``change`` happens to the model after make_private."""
    optimizer, loader = torch.optim.SGD(model.parameters(), 0.0), DataLoader(TensorDataset(*batch), batch_size=BATCH)
    PrivacyEngine(ledger=":memory:").make_private(
        module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=clip, loss_reduction="sum", poisson_sampling=False
    )  # fmt: skip
    change(model)
    for rows in loader:
        loop(model, optimizer, tuple(rows))


def sample_gradients(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> list[list[torch.Tensor]]:
    twin = copy.deepcopy(model).double()
    gradients = []
    for i in range(BATCH):
        row = [t[i : i + 1].double() if t.is_floating_point() else t[i : i + 1] for t in batch]
        found = torch.autograd.grad(losses(twin(*row), 1).sum(), list(twin.parameters()), allow_unused=True)
        gradients.append([torch.zeros_like(p) if g is None else g.to_dense() for g, p in zip(found, twin.parameters())])
    return gradients


def made(odd: Odd) -> tuple[Model, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return Model(odd.make, odd.forward), odd.inputs(BATCH)


@pytest.mark.parametrize("name", [name for name, odd in HOSTILE.items() if not odd.refused])
def test_odd_models_are_exact(name: str) -> None:
    model, batch = made(HOSTILE[name])
    gradients = sample_gradients(model, batch)
    clip = median_norm(gradients)
    train(model, batch, clip)
    assert_close([p.grad for p in model.parameters()], clipped_sum(gradients, clip))  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name, odd in HOSTILE.items() if odd.refused])
def test_odd_models_are_refused(name: str) -> None:
    model, batch = made(HOSTILE[name])
    with pytest.raises(Unsupported, match=HOSTILE[name].refused):
        train(model, batch)


PLAIN = Odd(layers, lambda m, x: m.b(torch.tanh(m.a(x.to(m.a.weight.dtype)))))


class Doubled(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return 2 * w


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.b, "weight", nn.Parameter(torch.ones(4, 8))), "'b.weight', which was added, replaced or unfrozen"),
        (lambda m: setattr(m, "run", lambda m, x: m.b(m.a(x))) or setattr(m, "late", nn.Linear(2, 2)), "'late.weight'"),
        (lambda m: parametrize.register_parametrization(m.a, "weight", Doubled()), "'a.parametrizations.weight.original', whose values were exchanged"),
        (lambda m: m.double(), "'a.weight', whose values were exchanged"),
        (lambda m: m.a.weight.register_hook(lambda g: 2 * g), "parameters without hooks"),
        (lambda m: m.a.weight.register_post_accumulate_grad_hook(lambda p: None), "parameters without hooks"),
    ],
)
def test_models_that_change_after_make_private_are_refused(change: Callable[[Any], object], message: str) -> None:
    model, batch = made(PLAIN)
    with pytest.raises(Unsupported, match=message):
        train(model, batch, change=change)


def test_parameters_unfrozen_later_are_refused() -> None:
    model, batch = made(PLAIN)
    model.a.requires_grad_(False)
    with pytest.raises(Unsupported, match="'a.weight', which was added, replaced or unfrozen"):
        train(model, batch, change=lambda m: m.a.requires_grad_(True))


def test_parameters_tied_and_frozen_later_are_exact() -> None:
    def change(m: Any) -> None:
        m.b.weight = m.a.weight
        m.b.bias.requires_grad_(False)

    torch.manual_seed(0)
    model = Model(lambda m: (setattr(m, "a", nn.Linear(5, 5)), setattr(m, "b", nn.Linear(5, 5)))[0], PLAIN.forward)  # type: ignore[func-returns-value]
    batch = PLAIN.inputs(BATCH)
    twin = copy.deepcopy(model)
    change(twin)
    twin.b.bias.requires_grad_(True)  # sample_gradients takes all; this one's are then left out
    gradients = [[w, bias] for w, bias, _ in sample_gradients(twin, batch)]
    clip = median_norm(gradients)
    train(model, batch, clip, change=change)
    assert_close([model.a.weight.grad, model.a.bias.grad], clipped_sum(gradients, clip))


def test_hooks_on_parameters_are_refused_at_once() -> None:
    model, batch = made(PLAIN)
    model.b.weight.register_hook(lambda g: g)
    with pytest.raises(Unsupported, match="parameters without hooks on their gradients, received one on 'b.weight'"):
        train(model, batch)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = torch.tanh(self.a(x))
        self.seen.append(self.hidden)
        return self.b(self.hidden)


def test_what_a_model_remembers_of_its_pass_stays() -> None:
    def loop(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
        model.seen.clear()
        output = model(*batch)
        assert model.hidden.requires_grad and len(model.seen) == 1 and model.seen[0] is model.hidden
        model.hidden.retain_grad()
        losses(output, BATCH).sum().backward()
        assert model.hidden.grad.shape == (BATCH, 8)
        optimizer.step()

    torch.manual_seed(0)
    train(Remembering(), floats(5)(BATCH), loop=loop)


def test_hooks_that_come_after_the_forward_pass_are_refused() -> None:
    def loop(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
        output = model(*batch)
        model.hidden.register_hook(lambda g: g / g.norm())
        losses(output, BATCH).sum().backward()

    with pytest.raises(Unsupported, match="registered in its forward pass"):
        train(Remembering(), floats(5)(BATCH), loop=loop)


def test_a_hook_on_the_output_that_only_looks_is_fine() -> None:
    def loop(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
        output, seen = model(*batch), []
        output.register_hook(lambda g: seen.append(g.shape))
        losses(output, BATCH).sum().backward()
        optimizer.step()
        assert seen

    train(made(PLAIN)[0], floats(5)(BATCH), loop=loop)


def test_gradient_scalers_are_refused() -> None:
    def loop(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(losses(model(*batch), BATCH).sum()).backward()
        scaler.step(optimizer)

    with pytest.raises(Unsupported, match="losses that are not scaled, received a step of torch.amp.GradScaler"):
        train(*made(PLAIN), loop=loop)


def test_a_scaler_that_is_switched_off_is_fine() -> None:
    def loop(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, ...]) -> None:
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        scaler.scale(losses(model(*batch), BATCH).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    train(*made(PLAIN), loop=loop)


def test_lazy_modules_have_to_run_once() -> None:
    with pytest.raises(InvalidArgument, match="'0.weight' of a lazy module that has not run"):
        train(nn.Sequential(nn.LazyLinear(4)), floats(5)(BATCH))


def test_random_draws_of_python_are_repeated_in_the_checks() -> None:
    import random

    model = Model(layers, lambda m, x: m.b(torch.tanh(m.a(x)) * random.random()))
    torch.manual_seed(0)
    random.seed(0)
    train(model, floats(5)(BATCH))
    seen = random.random()
    random.seed(0)
    random.random()
    assert seen == random.random()  # the checks took nothing from the stream
