"""Odd models, each either exact or refused: hooks, own autograd functions, functional calls, algebra on parameters, odd loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from capture_models import floats, ids
from torch import nn
from torch.utils.checkpoint import checkpoint

Made = Callable[["Model"], None]
Forward = Callable[..., Any]
Inputs = Callable[[int], tuple[torch.Tensor, ...]]


class Model(nn.Module):
    """make(model) gives it parameters; forward(model, *inputs) uses them."""

    def __init__(self, make: Made, forward: Forward) -> None:
        super().__init__()
        make(self)
        self.run = forward

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.run(self, *inputs)


@dataclass(frozen=True)
class Odd:
    """refused: what the message says; "" if the model trains exactly."""

    make: Made
    forward: Forward
    inputs: Inputs = field(default_factory=lambda: floats(5))
    refused: str = ""


def weights(*shape: int) -> Made:
    def make(model: Model) -> None:
        model.w = nn.Parameter(torch.randn(*shape))

    return make


def layers(model: Model) -> None:
    model.a, model.b = nn.Linear(5, 8), nn.Linear(8, 4)


def between(change: Callable[[torch.Tensor], torch.Tensor], refused: str = "") -> Odd:
    """Two layers with something between them."""
    return Odd(layers, lambda m, x: m.b(change(torch.tanh(m.a(x)))), refused=refused)


def hooked(hook: Callable[[torch.Tensor], torch.Tensor], refused: str = "") -> Odd:
    def change(h: torch.Tensor) -> torch.Tensor:
        h.register_hook(hook)
        return h

    return between(change, refused)


def own(backward: Callable[[torch.Tensor], torch.Tensor], refused: str = "") -> Odd:
    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return backward(gradient)

    return between(Identity.apply, refused)


def hook_on_weight(view: Callable[[torch.Tensor], torch.Tensor], *shape: int) -> Odd:
    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        w = view(m.w)
        w.register_hook(lambda gradient: 3 * gradient)
        return torch.tanh(x @ w)

    return Odd(weights(*shape), forward)


BACKWARD = "gradients that flow back sample by sample"
LEFT_OUT = "changes when others are left out"

HOSTILE: dict[str, Odd] = {
    # Gradients computed by the user.
    "hook_that_scales": hooked(lambda g: 2 * g),
    "hook_that_masks": hooked(lambda g: g * (torch.arange(8) > 2)),
    "hook_that_normalises": hooked(lambda g: g / g.norm(), BACKWARD),
    "hook_that_divides_by_the_largest": hooked(lambda g: g / g.abs().max(), BACKWARD),
    "hook_that_divides_by_the_batch": hooked(lambda g: g / g.size(0), BACKWARD),
    "hook_that_clamps": hooked(lambda g: g.clamp(-0.01, 0.01), BACKWARD),
    "hook_that_centres": hooked(lambda g: g - g.mean(0), "mixes the samples"),
    "own_function_that_reverses": own(lambda g: -g),
    "own_function_that_normalises": own(lambda g: g / g.norm(), BACKWARD),
    "own_function_that_divides_by_the_batch": own(lambda g: g / g.size(0), BACKWARD),
    "hook_on_a_transposed_weight": hook_on_weight(lambda w: w.t(), 4, 5),
    "hook_on_a_sliced_weight": hook_on_weight(lambda w: w[:5], 6, 4),
    "hook_on_a_view_of_a_weight": hook_on_weight(lambda w: w.view(5, 4), 20),
    "hook_on_a_computed_weight": hook_on_weight(lambda w: w * 2, 5, 4),
    # What depends on the number of samples, or on a sample's place.
    "divided_by_the_batch": between(lambda h: h / h.size(0), LEFT_OUT),
    "times_root_of_the_batch": between(lambda h: h * len(h) ** 0.5, LEFT_OUT),
    "numbered_samples": between(lambda h: h * torch.arange(1, len(h) + 1).view(-1, 1), LEFT_OUT),
    "divided_by_the_batch_behind_dropout": between(lambda h: F.dropout(h, 0.5) / h.size(0), LEFT_OUT),
    "embedding_of_the_place": Odd(lambda m: (layers(m), weights(9, 8)(m))[0], lambda m, x: m.b(m.a(x) + m.w[: len(x)]), refused=LEFT_OUT),
    "rows_joined_and_parted": between(lambda h: torch.cat([h, -h])[: len(h)]),
    "tiles_of_the_batch": between(lambda h: h.repeat(3, 1).sin().view(3, len(h), -1).mean(0)),
    "order_changed_and_put_back": between(lambda h: h.flip(0).sin().flip(0)),
    # Calls.
    "functional_call": Odd(layers, lambda m, x: torch.func.functional_call(m.a, {k: 2 * v for k, v in m.a.named_parameters()}, (x,))),
    "vmap_over_samples": Odd(layers, lambda m, x: torch.vmap(lambda row: m.b(m.a(row).tanh()))(x)),
    "jacobian_as_output": Odd(layers, lambda m, x: torch.vmap(torch.func.jacrev(lambda row: m.b(m.a(row).tanh())))(x).flatten(1)),
    "tangent_as_output": Odd(layers, lambda m, x: torch.func.jvp(lambda z: m.b(m.a(z).tanh()), (x,), (torch.ones_like(x),))[1]),
    "loop_over_samples": Odd(layers, lambda m, x: torch.stack([m.b(m.a(row).tanh() if row.sum() > 0 else m.a(row).relu()) for row in x])),
    "nested_checkpoints": Odd(
        layers,
        lambda m, x: checkpoint(lambda z: m.b(checkpoint(lambda y: m.a(y).tanh(), z, use_reentrant=False)), x, use_reentrant=False),
    ),
    "written_in_place": Odd(weights(5), lambda m, x: torch.zeros_like(x).add_(m.w).mul_(x)),
    # Algebra on parameters.
    "inverse": Odd(weights(5, 5), lambda m, x: x @ torch.linalg.inv(m.w + 9 * torch.eye(5, dtype=x.dtype))),
    "cholesky": Odd(weights(5, 5), lambda m, x: x @ torch.linalg.cholesky(m.w @ m.w.T + torch.eye(5, dtype=x.dtype))),
    "spectrum": Odd(weights(5), lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(m.w), n=5)),
    "sorted_parameter": Odd(weights(5), lambda m, x: x * m.w.sort().values),
    "binarised": Odd(weights(5, 4), lambda m, x: x @ (m.w + (m.w.sign() - m.w).detach())),
    "solved": Odd(weights(5, 5), lambda m, x: torch.linalg.solve(m.w + 9 * torch.eye(5, dtype=x.dtype), x.T).T),
    "sampled_from_a_parameter": Odd(
        weights(1, 3, 7, 7), lambda m, g: F.grid_sample(m.w.expand(len(g), -1, -1, -1), g.tanh(), align_corners=True), floats(4, 4, 2)
    ),
    "samples_as_groups": Odd(
        weights(4, 3, 3, 3),
        lambda m, x: F.conv2d(x.reshape(1, -1, 6, 6), m.w.repeat(len(x), 1, 1, 1), groups=len(x)).view(len(x), 4, 4, 4),
        floats(3, 6, 6),
    ),
    "table_with_a_sample_written_in": Odd(
        weights(9, 5),
        lambda m, t: m.w.expand(len(t), 9, 5).clone().index_put((torch.arange(len(t)), t), torch.ones((), dtype=m.w.dtype)),
        ids(9),
    ),
    "table_that_samples_add_to": Odd(
        weights(9, 5), lambda m, t: m.w.index_add(0, t, torch.ones(len(t), 5, dtype=m.w.dtype))[t], ids(3), refused="depend on that sample only"
    ),
    "sparse_gradients": Odd(lambda m: setattr(m, "a", nn.Embedding(9, 5, sparse=True)), lambda m, t: m.a(t).sum(1), ids(9, 3)),
}
