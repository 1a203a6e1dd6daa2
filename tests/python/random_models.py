"""Models put together at random from operators that keep samples apart and, now and then, one that does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["RandomModel"]

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Shape:
    """Of what flows: [B, T, d]."""

    length: int
    width: int


class RandomModel(nn.Module):
    """``length`` operators drawn from a seed. ``names`` says which; ``mixes`` whether one was drawn that is meant to mix samples."""

    def __init__(self, seed: int, shape: Shape, length: int, chance_to_mix: float) -> None:
        super().__init__()
        self.draw, self.shape = random.Random(seed), shape
        self.parameters_drawn, self.modules_drawn = nn.ParameterList(), nn.ModuleList()
        self.names: list[str] = []
        self.mixes = False
        self.steps = [self._step(chance_to_mix) for _ in range(length)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def _step(self, chance_to_mix: float) -> Step:
        mixing = self.draw.random() < chance_to_mix
        self.mixes = self.mixes or mixing
        name, make = self.draw.choice(MIXING if mixing else APART)
        self.names.append(name)
        return make(self)

    def parameter(self, *sizes: int) -> Callable[[], torch.Tensor]:
        """One from before, if it has the sizes, every third time: shared weights."""
        fitting = [i for i, p in enumerate(self.parameters_drawn) if p.shape == sizes]
        if fitting and self.draw.random() < 0.33:
            index = self.draw.choice(fitting)
        else:
            self.parameters_drawn.append(nn.Parameter(torch.randn(sizes) / max(sizes) ** 0.5))
            index = len(self.parameters_drawn) - 1
        return lambda: self.parameters_drawn[index]

    def module(self, make: Callable[[], nn.Module]) -> Callable[..., torch.Tensor]:
        self.modules_drawn.append(make())
        index = len(self.modules_drawn) - 1
        return lambda *x: self.modules_drawn[index](*x)


def of_weight(use: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], sizes: Callable[[Shape], tuple[int, ...]]) -> Callable[[RandomModel], Step]:
    def make(model: RandomModel) -> Step:
        w = model.parameter(*sizes(model.shape))
        return lambda x: use(x, w())

    return make


def of_two_weights(use: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[RandomModel], Step]:
    def make(model: RandomModel) -> Step:
        v, w = model.parameter(model.shape.width, model.shape.width), model.parameter(model.shape.width, model.shape.width)
        return lambda x: use(x, v(), w())

    return make


def plain(use: Step) -> Callable[[RandomModel], Step]:
    return lambda model: use


def of_module(build: Callable[[Shape], nn.Module], use: Callable[[Callable[..., torch.Tensor], torch.Tensor], torch.Tensor]) -> Callable[[RandomModel], Step]:
    def make(model: RandomModel) -> Step:
        module = model.module(lambda: build(model.shape))
        return lambda x: use(module, x)

    return make


def vector(shape: Shape) -> tuple[int, ...]:
    return (shape.width,)


def square(shape: Shape) -> tuple[int, ...]:
    return (shape.width, shape.width)


def steps(shape: Shape) -> tuple[int, ...]:
    return (shape.length, shape.length)


def table(shape: Shape) -> tuple[int, ...]:
    return (5, shape.width)


def codes(x: torch.Tensor) -> torch.Tensor:
    """[B, T] in 0..4, of each row's own values."""
    return (x.detach() * 3).sum(-1).add(0.377).abs().long() % 5  # rows that add up to a whole number do not round to two


def ghost(t: torch.Tensor) -> torch.Tensor:
    """Zero, with the gradient of its argument."""
    return t - t.detach()


class ClippedBackward(torch.autograd.Function):
    """The identity, whose gradient is divided by the norm of the whole batch's."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] / (1 + gradients[0].norm())


def attention(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(x @ v, x @ w, x)


def routed(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Each row to one of two experts."""
    first = codes(x) % 2 == 0
    y = torch.zeros_like(x)
    y[first] = x[first] @ v
    return y.masked_scatter(~first[..., None], torch.tanh(x[~first] @ w))


def halves_of_batch(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    half = (x.size(0) + 1) // 2
    return torch.cat([torch.tanh(part @ v) @ w for part in x.split(half)])


def unrolled(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    state, states = torch.zeros_like(x[:, 0]), []
    for step in x.unbind(1):
        state = torch.tanh(step @ v + state @ w)
        states.append(state)
    return torch.stack(states, 1)


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.ifft(torch.fft.fft(x, dim=1) * 0.5, dim=1).real


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 0] += y[:, -1]
    return y.mul_(0.5)


def by_rows(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.stack([row @ w for row in x])


def lstm(module: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return module(x)[0]


APART: list[tuple[str, Callable[[RandomModel], Step]]] = [
    ("linear", of_module(lambda s: nn.Linear(s.width, s.width), lambda m, x: m(x))),
    ("linear over steps", of_module(lambda s: nn.Linear(s.length, s.length, bias=False), lambda m, x: m(x.mT).mT)),
    ("matmul", of_weight(lambda x, w: x @ w, square)),
    ("functional linear of a scaled weight", of_weight(lambda x, w: F.linear(x, w / (1 + w.norm())), square)),
    ("product of weights", of_two_weights(lambda x, v, w: x @ (v @ w.t()))),
    ("scale", of_weight(lambda x, w: x * w, vector)),
    ("shift", of_weight(lambda x, w: x + w, vector)),
    ("shift by a function", of_weight(lambda x, w: x + w.cumsum(0).tanh(), vector)),
    ("einsum", of_weight(lambda x, w: torch.einsum("btd,de->bte", x, w), square)),
    ("einsum over steps", of_weight(lambda x, w: torch.einsum("btd,st->bsd", x, w), steps)),
    ("weight on the left", of_weight(lambda x, w: w @ x, steps)),
    ("transposed product", of_weight(lambda x, w: (w.t() @ x.transpose(1, 2)).transpose(1, 2), square)),
    ("lookup", of_weight(lambda x, w: x + w[codes(x)], table)),
    ("embedding", of_weight(lambda x, w: x * F.embedding(codes(x), w), table)),
    ("where", of_weight(lambda x, w: torch.where(x > 0, x, w), vector)),
    ("prelu", of_weight(lambda x, w: F.prelu(x.flatten(0, 1), w).view_as(x), vector)),
    ("attention", of_two_weights(attention)),
    ("low rank", of_two_weights(lambda x, v, w: x + x @ v[:, :2] @ w[:2])),
    ("checkpoint", of_two_weights(lambda x, v, w: checkpoint(lambda y: torch.tanh(y @ v) @ w, x, use_reentrant=False))),  # type: ignore[return-value]
    ("layer norm", of_module(lambda s: nn.LayerNorm(s.width), lambda m, x: m(x))),
    ("layer norm of both", of_module(lambda s: nn.LayerNorm([s.length, s.width]), lambda m, x: m(x))),
    ("group norm", of_module(lambda s: nn.GroupNorm(1, s.length), lambda m, x: m(x))),
    ("convolution", of_module(lambda s: nn.Conv1d(s.length, s.length, 3, padding=1), lambda m, x: m(x))),
    ("lstm", of_module(lambda s: nn.LSTM(s.width, s.width, batch_first=True), lstm)),
    ("gru", of_module(lambda s: nn.GRU(s.width, s.width, batch_first=True), lstm)),
    ("multi-head attention", of_module(lambda s: nn.MultiheadAttention(s.width, 2 - s.width % 2, batch_first=True), lambda m, x: m(x, x, x)[0])),  # type: ignore[return-value]
    ("rnn", of_module(lambda s: nn.RNN(s.width, s.width, batch_first=True, nonlinearity="relu"), lstm)),
    ("weight norm", of_module(lambda s: nn.utils.parametrizations.weight_norm(nn.Linear(s.width, s.width)), lambda m, x: m(x))),
    ("image", of_module(lambda s: nn.Conv2d(1, 1, 3, padding=1), lambda m, x: m(x[:, None]).squeeze(1))),
    ("depthwise", of_module(lambda s: nn.Conv1d(s.length, s.length, 1, groups=s.length), lambda m, x: m(x))),
    ("transposed convolution", of_module(lambda s: nn.ConvTranspose1d(s.length, s.length, 3, padding=1), lambda m, x: m(x))),
    ("encoder layer", of_module(lambda s: nn.TransformerEncoderLayer(s.width, 2 - s.width % 2, 5, 0.0, batch_first=True), lambda m, x: m(x))),
    ("bilinear", of_module(lambda s: nn.Bilinear(s.width, s.width, s.width), lambda m, x: m(x, x))),
    ("experts", of_two_weights(routed)),
    ("halves of the batch apart", of_two_weights(halves_of_batch)),
    ("unrolled recurrence", of_two_weights(unrolled)),
    ("row by row", of_weight(by_rows, square)),
    ("vmap", of_weight(lambda x, w: torch.func.vmap(lambda row: torch.tanh(row @ w))(x), square)),
    ("hidden product of each row", of_weight(lambda x, w: x + ghost(x.detach() @ w), square)),
    ("hidden scale of each row", of_weight(lambda x, w: x + ghost(w * x.detach().sum(1, keepdim=True)), vector)),
    ("gather", of_weight(lambda x, w: x * w.expand(x.size(0), -1, -1).gather(1, codes(x)[..., None].expand_as(x)), table)),
    ("selected columns", of_weight(lambda x, w: x @ w.index_select(1, torch.arange(w.size(1)).flip(0)), square)),
    ("chunks of a weight", of_weight(lambda x, w: torch.cat([x @ part.t() for part in w.chunk(2)], -1), square)),
    ("outer product", of_weight(lambda x, w: x + (x.sum(-1, keepdim=True) * w).sin(), vector)),
    ("statistics of a weight", of_weight(lambda x, w: x * (w.std(0) + w.abs().amax(0)), square)),
    ("spectrum", plain(spectrum)),
    ("in place", plain(in_place)),
    ("top two", plain(lambda x: x * (x >= x.topk(2, -1).values[..., 1:]))),
    ("scatter", plain(lambda x: torch.zeros_like(x).scatter(1, codes(x)[..., None].expand_as(x) % x.size(1), x))),
    ("index add", plain(lambda x: x.index_add(1, torch.tensor([0, 0, 1]), x[:, :3]))),
    ("tanh", plain(torch.tanh)),
    ("relu", plain(F.relu)),
    ("softmax", plain(lambda x: x.softmax(-1))),
    ("softmax over steps", plain(lambda x: x.softmax(1))),
    ("centre each row", plain(lambda x: x - x.mean(-1, keepdim=True))),
    ("centre each sample", plain(lambda x: x - x.mean((1, 2), keepdim=True))),
    ("cumsum", plain(lambda x: x.cumsum(1))),
    ("sort", plain(lambda x: x.sort(-1).values)),
    ("roll", plain(lambda x: x.roll(1, 1))),
    ("flip", plain(lambda x: x.flip(2))),
    ("pool", plain(lambda x: x + x.amax(1, keepdim=True))),
    ("products within", plain(lambda x: torch.bmm(torch.bmm(x, x.mT).tanh(), x))),
    ("halves", plain(lambda x: torch.cat([x[..., 1:], x[..., :1]], -1))),
    ("norm", plain(lambda x: x / (1 + x.norm(dim=-1, keepdim=True)))),
    ("detached scale", plain(lambda x: x * x.detach().abs().amax((1, 2), keepdim=True))),
    ("through flat", plain(lambda x: x.reshape(x.size(0), -1).tanh().view_as(x))),
    ("through columns", plain(lambda x: x.permute(2, 0, 1).contiguous().sin().permute(1, 2, 0))),
]

MIXING: list[tuple[str, Callable[[RandomModel], Step]]] = [
    ("centre the batch", plain(lambda x: x - x.mean(0))),
    ("centre the batch, detached", plain(lambda x: x - x.detach().mean(0))),
    ("scale by all", plain(lambda x: x / (1 + x.norm()))),
    ("scale by all, detached", plain(lambda x: x / (1 + x.detach().norm()))),
    ("softmax over the batch", plain(lambda x: x.softmax(0))),
    ("roll over the batch", plain(lambda x: x.roll(1, 0))),
    ("flip the batch", plain(lambda x: x.flip(0))),
    ("sort the batch", plain(lambda x: x.sort(0).values)),
    ("cumsum over the batch", plain(lambda x: x.cumsum(0))),
    ("largest of the batch", plain(lambda x: torch.where(x == x.amax(0), x, 0.5 * x))),
    ("mask by the batch's median", plain(lambda x: x * (x > x.median()))),
    ("number of samples", plain(lambda x: x / x.size(0))),
    ("place in the batch", plain(lambda x: x * torch.arange(1, x.size(0) + 1, dtype=x.dtype)[:, None, None])),
    ("products between samples", plain(lambda x: torch.einsum("btd,ctd->bc", x, x).tanh().mean(1)[:, None, None] * x)),
    ("wrong view", plain(lambda x: x.transpose(0, 1).reshape(x.shape))),
    ("weight times batch statistic", of_weight(lambda x, w: x @ (w * x.mean()), square)),
    ("weight times detached statistic", of_weight(lambda x, w: x @ (w * x.detach().std()), square)),
    ("lookup of a count", of_weight(lambda x, w: x + w[int((x > 0).sum()) % 5], table)),
    ("hidden lookup", of_weight(lambda x, w: x + ghost(w[codes(x)].sum((0, 1))), table)),
    ("hidden product", of_weight(lambda x, w: x + ghost((x.detach() @ w).sum((0, 1))), square)),
    ("hidden scale", of_weight(lambda x, w: x + ghost(w * x.detach().sum((0, 1))), vector)),
    ("hidden number", of_weight(lambda x, w: x + ghost(w * x.size(0)), vector)),
    ("hidden number of rows", of_weight(lambda x, w: x + ghost(w * torch.ones_like(x).sum((0, 1))), vector)),
    ("hidden largest", of_weight(lambda x, w: x + ghost(w * x.detach().amax((0, 1))), vector)),
    ("hidden number above a threshold", of_weight(lambda x, w: x + ghost(w * (x > 2).sum()), vector)),
    ("hidden power", of_weight(lambda x, w: x + ghost((x.detach() * w).norm()), vector)),
    ("detached roll", plain(lambda x: x + x.detach().roll(1, 0))),
    ("running sum of what was", plain(lambda x: x + 0.1 * x.detach().cumsum(0).tanh())),
    ("rank in the batch", plain(lambda x: x * x.detach()[:, 0, 0].argsort().argsort()[:, None, None])),
    ("first sample", plain(lambda x: x + x[:1])),
    ("neighbours' attention", of_two_weights(lambda x, v, w: attention(x.transpose(0, 1), v, w).transpose(0, 1))),
    ("covariance", plain(lambda x: x @ torch.cov(x.flatten(0, 1).t()))),
    ("gradient clipped over the batch", plain(lambda x: ClippedBackward.apply(x))),
    ("hidden mean", of_weight(lambda x, w: x + ghost((x * w).mean(0)), vector)),
    ("batch norm", of_module(lambda s: nn.BatchNorm1d(s.length, track_running_stats=False), lambda m, x: m(x))),
    ("attention between samples", of_module(lambda s: nn.MultiheadAttention(s.width, 1, batch_first=False), lambda m, x: m(x, x, x)[0])),
]
