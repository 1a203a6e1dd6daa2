"""Whole architectures, as users bring them: through the engine, with its forward and loss checks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from capture_models import Case, floats, ids
from capture_networks import Call
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils.parametrizations import orthogonal, weight_norm
from torch.utils.checkpoint import checkpoint_sequential

ARCHITECTURES: dict[str, Case] = {}
Inputs = Callable[[int], tuple[torch.Tensor, ...]]


def add(name: str, build: Callable[[], nn.Module], inputs: Inputs, batch_first: bool = True) -> None:
    assert name not in ARCHITECTURES
    ARCHITECTURES[name] = Case(build, inputs, batch_first, forward_is_checked=True)


def call(name: str, inputs: Inputs, forward: Callable[..., torch.Tensor], **members: Callable[[], Any]) -> None:
    add(name, lambda: Call(forward, **{key: build() for key, build in members.items()}), inputs)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size, following in zip(sizes, sizes[1:]):
        layers += [nn.Linear(size, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


# Images.
class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depth, self.point = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1, bias=False)
        self.first, self.second = nn.GroupNorm(1, inputs), nn.GroupNorm(2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(self.second(self.point(F.relu6(self.first(self.depth(x))))))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth, self.project = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.depth(F.hardswish(self.expand(x)))
        return x + self.project(h * F.hardsigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True))))))


class ConvNextBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.LayerNorm(4)
        self.up, self.down, self.scale = nn.Linear(4, 16), nn.Linear(16, 4), nn.Parameter(torch.rand(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (self.scale * self.down(F.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1)))))).permute(0, 3, 1, 2)


class ShiftedWindows(nn.Module):
    """Attention in 2 x 2 windows, shifted by rolling over space, with a table of relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.table = nn.Linear(8, 24), nn.Linear(8, 8), nn.Parameter(torch.randn(9, 2))
        self.register_buffer("index", torch.randint(9, (4, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.size(0)
        h = x.roll((-1, -1), (1, 2)).view(batch, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(batch * 4, 4, 8)
        q, k, v = self.qkv(h).view(batch * 4, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) + self.table[self.index].permute(2, 0, 1)).softmax(-1)
        h = self.out((weights @ v).transpose(1, 2).reshape(batch * 4, 4, 8))
        return x + h.view(batch, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(batch, 4, 4, 8).roll((1, 1), (1, 2))


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.GroupNorm(1, 4 + 2 * i), nn.ReLU(), nn.Conv2d(4 + 2 * i, 2, 3, padding=1)) for i in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class UNet3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True)
        self.down, self.up, self.last = nn.Conv3d(4, 8, 2, 2), nn.ConvTranspose3d(8, 4, 2, 2), nn.Conv3d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(self.norm(self.first(x)))
        return self.last(torch.cat([h, self.up(F.relu(self.down(h)))], 1))


class FrozenBackbone(nn.Module):
    """Batch normalisation that stays in evaluation mode whatever train() says."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
        self.head = nn.Linear(4, 3)

    def train(self, mode: bool = True) -> FrozenBackbone:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x).mean((2, 3)))


add("mobilenet", lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Separable(4, 8), Separable(8, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)), floats(3, 12, 12))
add("squeeze_and_excite", lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), SqueezeExcite(), SqueezeExcite()), floats(3, 8, 8))
add("convnext", lambda: nn.Sequential(nn.Conv2d(3, 4, 2, 2), ConvNextBlock(), ConvNextBlock()), floats(3, 8, 8))
add("shifted_windows", lambda: nn.Sequential(ShiftedWindows(), ShiftedWindows()), floats(4, 4, 8))
add("densenet", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), DenseBlock(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(90, 3)), floats(3, 8, 8))
add("u_net_3d", UNet3d, floats(1, 4, 4, 4))
add("frozen_backbone", FrozenBackbone, floats(3, 8, 8))
call("spatial_transformer", floats(3, 6, 6), lambda m, x: m.conv(F.grid_sample(x, F.affine_grid(m.where(x.flatten(1)).view(-1, 2, 3) * 0.1 + torch.eye(2, 3).to(x), list(x.shape), align_corners=False), align_corners=False)),
     where=lambda: nn.Linear(108, 6), conv=lambda: nn.Conv2d(3, 2, 3))
call("unfold_and_fold", floats(3, 6, 6), lambda m, x: F.fold(m.mix(F.unfold(x, 3).transpose(1, 2)).transpose(1, 2), (6, 6), 3), mix=lambda: nn.Linear(27, 27))
call("modulated_convolution", lambda b: (torch.randn(b, 3, 6, 6), torch.randn(b, 4)),
     lambda m, x, s: F.conv2d(x.reshape(1, -1, 6, 6), (m.w[None] * (m.style(s) + 1)[:, None, :, None, None]).flatten(0, 1), groups=x.size(0)).view(x.size(0), 5, 4, 4),
     w=lambda: torch.randn(5, 3, 3, 3), style=lambda: nn.Linear(4, 3))
call("feature_modulation", lambda b: (torch.randn(b, 3, 6, 6), torch.randn(b, 4)), lambda m, x, c: F.relu(torch.addcmul(m.shift(c)[..., None, None], m.scale(c)[..., None, None], m.conv(x))),
     conv=lambda: nn.Conv2d(3, 5, 3), scale=lambda: nn.Linear(4, 5), shift=lambda: nn.Linear(4, 5))


# Sequences.
class GatedBlock(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation, self.conv = dilation, nn.Conv1d(4, 8, 2, dilation=dilation)
        self.residual, self.skip = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.conv(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        z = a.tanh() * b.sigmoid()
        return x + self.residual(z), self.skip(z)


def wavenet(m: Any, x: torch.Tensor) -> torch.Tensor:
    h, total = m.first(x), 0
    for block in m.blocks:
        h, skip = block(h)
        total = total + skip
    return m.last(torch.relu(total))


def selective_scan(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The recurrence of Mamba, one step after the other."""
    u, z = m.inward(x).chunk(2, -1)
    u = F.silu(m.conv(u.transpose(1, 2))[..., : x.size(1)].transpose(1, 2))
    dt, b, c = m.project(u).split([1, 3, 3], -1)
    dt, decay, h, outputs = F.softplus(m.dt(dt)), -m.log_decay.exp(), u.new_zeros(x.size(0), 4, 3), []
    for t in range(x.size(1)):
        h = torch.exp(dt[:, t, :, None] * decay) * h + dt[:, t, :, None] * b[:, t, None, :] * u[:, t, :, None]
        outputs.append((h * c[:, t, None, :]).sum(-1))
    return m.outward((torch.stack(outputs, 1) + u * m.skip) * F.silu(z))


def linear_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = F.elu(m.q(x)) + 1, F.elu(m.k(x)) + 1, m.v(x)
    return torch.einsum("btd,btde->bte", q, torch.einsum("btd,bte->btde", k, v).cumsum(1))


def convolutional_lstm(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.start.expand(x.size(0), 4, 5, 5)
    c = torch.zeros_like(h)
    for t in range(x.size(1)):
        i, f, g, o = m.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def attending_decoder(m: Any, x: torch.Tensor) -> torch.Tensor:
    states, h = m.encoder(x)
    h, y, outputs = h[0], m.start.expand(x.size(0), 6), []
    for _ in range(3):
        h = m.cell(y, h)
        y = ((states @ m.query(h)[..., None]).softmax(1) * states).sum(1)
        outputs.append(m.head(torch.cat([h, y], 1)))
    return torch.stack(outputs, 1)


class LearnedStates(nn.Module):
    """[T, B, 4], batch second, from initial states that are parameters."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer, self.head, self.h, self.c = kind(4, 5, 2), nn.Linear(5, 2), nn.Parameter(torch.randn(2, 1, 5)), nn.Parameter(torch.randn(2, 1, 5))  # type: ignore[call-arg,arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, c = (state.expand(-1, x.size(1), -1).contiguous() for state in (self.h, self.c))
        return self.head(self.layer(x, (h, c) if isinstance(self.layer, nn.LSTM) else h)[0])


def packed(m: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    sequences = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return m.head(nn.utils.rnn.pad_packed_sequence(m.layer(sequences)[0], batch_first=True, total_length=x.size(1))[0])


def of_lengths(b: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(b, 6, 4), torch.cat([torch.tensor([6]), torch.randint(1, 7, (b,))])[:b]


add("temporal_convolution", lambda: nn.Sequential(weight_norm(nn.Conv1d(3, 4, 3, padding=2)), nn.ReLU(), weight_norm(nn.Conv1d(4, 4, 3, padding=4, dilation=2))), floats(3, 8))
call("wavenet", floats(2, 12), wavenet, first=lambda: nn.Conv1d(2, 4, 1), blocks=lambda: nn.ModuleList(GatedBlock(2**i) for i in range(3)), last=lambda: nn.Conv1d(4, 2, 1))
call("selective_scan", floats(7, 6), selective_scan, inward=lambda: nn.Linear(6, 8), conv=lambda: nn.Conv1d(4, 4, 3, groups=4, padding=2), project=lambda: nn.Linear(4, 7),
     dt=lambda: nn.Linear(1, 4), log_decay=lambda: torch.randn(4, 3), skip=lambda: torch.randn(4), outward=lambda: nn.Linear(4, 6))
call("linear_attention", floats(5, 8), linear_attention, q=lambda: nn.Linear(8, 4), k=lambda: nn.Linear(8, 4), v=lambda: nn.Linear(8, 4))
call("long_convolution_by_fft", floats(8, 3), lambda m, x: torch.fft.irfft(torch.fft.rfft(x, 16, dim=1) * torch.fft.rfft(m.kernel, 16, dim=0), 16, dim=1)[:, :8] + m.skip * x,
     kernel=lambda: torch.randn(8, 3), skip=lambda: torch.randn(3))
call("fourier_operator", floats(8, 2), lambda m, x: torch.fft.irfft(torch.einsum("bki,kio->bko", torch.fft.rfft(x, dim=1)[:, :3], torch.view_as_complex(m.w)), n=8, dim=1) + m.skip(x),
     w=lambda: torch.randn(3, 2, 4, 2), skip=lambda: nn.Linear(2, 4))
call("convolutional_lstm", floats(3, 3, 5, 5), convolutional_lstm, gates=lambda: nn.Conv2d(7, 16, 3, padding=1), start=lambda: torch.randn(4, 1, 1))
call("attending_decoder", floats(5, 4), attending_decoder, encoder=lambda: nn.GRU(4, 6, batch_first=True), cell=lambda: nn.GRUCell(6, 6), query=lambda: nn.Linear(6, 6),
     head=lambda: nn.Linear(12, 3), start=lambda: torch.randn(6))
for _kind in (nn.RNN, nn.GRU, nn.LSTM):
    add(f"{_kind.__name__.lower()}_learned_states", lambda kind=_kind: LearnedStates(kind), lambda b: (torch.randn(3, b, 4),), batch_first=False)
    call(f"{_kind.__name__.lower()}_packed", of_lengths, packed, layer=lambda kind=_kind: kind(4, 5, batch_first=True), head=lambda: nn.Linear(5, 2))
call("lstm_packed_both_ways", of_lengths, packed, layer=lambda: nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), head=lambda: nn.Linear(10, 2))


# Sets and graphs.
def joined_graphs(m: Any, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """The graphs of a batch as one graph of all their nodes, as graph libraries have it."""
    batch, count, _ = nodes.shape
    offset = torch.arange(batch)[:, None] * count
    source, target = (edges[..., 0] + offset).flatten(), (edges[..., 1] + offset).flatten()
    h = m.first(nodes).flatten(0, 1)
    h = (torch.zeros_like(h).index_add(0, target, h[source]) + h).relu()
    h = m.second(h)
    return torch.zeros_like(h).index_add(0, target, h[source]).view(batch, count, -1).sum(1)


def only_nodes_with_edges(m: Any, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Layers on the nodes that occur in an edge, as many in each graph as there happen to be."""
    batch, count, _ = nodes.shape
    used = torch.zeros(batch, count, dtype=torch.bool).scatter(1, edges.flatten(1), True)
    h = nodes.new_zeros(batch, count, 3)
    h[used] = m.second(torch.tanh(m.first(nodes[used])))
    return h.sum(1)


def graph_attention(m: Any, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    h = m.lift(nodes)
    index = [edges[..., i, None].expand(-1, -1, h.size(2)) for i in (0, 1)]
    source, target = (torch.gather(h, 1, i) for i in index)
    weights = F.leaky_relu(torch.cat([source, target], -1) @ m.score).exp()
    total = torch.zeros(nodes.shape[:2], dtype=h.dtype).scatter_add(1, edges[..., 1], weights)
    shares = weights / torch.gather(total, 1, edges[..., 1])
    return m.head(torch.zeros_like(h).scatter_add(1, index[1], source * shares[..., None]).amax(1))


def graphs(b: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(b, 6, 4), torch.randint(6, (b, 8, 2))


call("deep_sets", lambda b: (torch.randn(b, 5, 3), torch.rand(b, 5) > 0.3), lambda m, x, kept: m.rho((m.phi(x) * kept[..., None]).sum(1)), phi=lambda: mlp(3, 6, 6), rho=lambda: nn.Linear(6, 2))
call("set_transformer", floats(5, 8), lambda m, x: m.pool(m.seed.expand(x.size(0), -1, -1), *[m.attend(m.inducing.expand(x.size(0), -1, -1), x, x)[0]] * 2)[0],
     attend=lambda: nn.MultiheadAttention(8, 2, batch_first=True), pool=lambda: nn.MultiheadAttention(8, 2, batch_first=True), inducing=lambda: torch.randn(1, 3, 8), seed=lambda: torch.randn(1, 2, 8))
call("joined_graphs", graphs, joined_graphs, first=lambda: nn.Linear(4, 5), second=lambda: nn.Linear(5, 3))
call("graphs_of_any_size", graphs, only_nodes_with_edges, first=lambda: nn.Linear(4, 5), second=lambda: nn.Linear(5, 3))
call("graph_attention", graphs, graph_attention, lift=lambda: nn.Linear(4, 5), score=lambda: torch.randn(10), head=lambda: nn.Linear(5, 2))
call("nearest_neighbours", floats(6, 3), lambda m, x: m.edge(torch.gather(x[:, None].expand(-1, 6, -1, -1), 2, torch.cdist(x, x).topk(3, largest=False).indices[..., 1:, None].expand(-1, -1, -1, 3)) - x[:, :, None]).amax(2),
     edge=lambda: nn.Linear(3, 4))


# Routing, gates, conditional weights.
def routed(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Two of three experts for each token; an expert sees its tokens only."""
    tokens = x.reshape(-1, 6)
    weights, chosen = m.router(tokens).softmax(-1).topk(2, -1)
    result = torch.zeros_like(tokens)
    for number, expert in enumerate(m.experts):
        row, rank = (chosen == number).nonzero(as_tuple=True)
        result = result.index_add(0, row, expert(tokens[row]) * weights[row, rank, None])
    return result.view(x.shape)


call("routed_experts", floats(5, 6), routed, router=lambda: nn.Linear(6, 3, bias=False), experts=lambda: nn.ModuleList(mlp(6, 5, 6) for _ in range(3)))
call("gathered_experts", floats(6), lambda m, x: torch.bmm(m.w[m.router(x).argmax(-1)], x[..., None]).squeeze(-1) * m.router(x).softmax(-1).amax(-1, keepdim=True),
     router=lambda: nn.Linear(6, 3), w=lambda: torch.randn(3, 4, 6))
call("adaptive_softmax", lambda b: (torch.randn(b, 6), torch.randint(12, (b,))), lambda m, x, y: m.layer(x, y)[0], layer=lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 7]))
call("highway", floats(6), lambda m, x: torch.lerp(x, m.change(x).relu(), m.gate(x).sigmoid()), change=lambda: nn.Linear(6, 6), gate=lambda: nn.Linear(6, 6))
call("hypernetwork", lambda b: (torch.randn(b, 6), torch.randn(b, 4)), lambda m, x, z: torch.baddbmm(m.bias(z)[..., None], m.weight(z).view(-1, 5, 6), x[..., None]).squeeze(-1), weight=lambda: nn.Linear(4, 30), bias=lambda: nn.Linear(4, 5))
call("feature_tokens", lambda b: (torch.randn(b, 4), torch.randint(5, (b, 3))),
     lambda m, x, c: m.layer(torch.cat([m.cls.expand(x.size(0), 1, 8), x[..., None] * m.w + m.b, m.table(c + torch.tensor([0, 5, 10]))], 1))[:, 0],
     cls=lambda: torch.randn(1, 1, 8), w=lambda: torch.randn(4, 8), b=lambda: torch.randn(4, 8), table=lambda: nn.Embedding(15, 8), layer=lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True))
call("factorisation_machine", ids(20, 5), lambda m, t: m.linear(t).sum((1, 2))[:, None] + 0.5 * (m.factors(t).sum(1).square() - m.factors(t).square().sum(1)).sum(1, keepdim=True) + m.bias,
     linear=lambda: nn.Embedding(20, 1), factors=lambda: nn.Embedding(20, 3), bias=lambda: torch.randn(1))


# Coordinates, densities, solvers.
def flow(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A coupling layer and an invertible product; the last column is the logarithm of the determinant."""
    u, v = x.chunk(2, 1)
    s, t = m.coupling(u).chunk(2, 1)
    determinant = s.tanh().sum(1) + torch.linalg.slogdet(m.w)[1]
    return torch.cat([torch.cat([u, v * s.tanh().exp() + t], 1) @ m.w, determinant[:, None]], 1)


def runge_kutta(m: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        a = m.f(x)
        b = m.f(x + 0.1 * a)
        c = m.f(x + 0.1 * b)
        x = x + 0.2 / 6 * (a + 2 * b + 2 * c + m.f(x + 0.2 * c))
    return x


def sinkhorn(m: Any, x: torch.Tensor) -> torch.Tensor:
    costs = m.costs(x)
    for _ in range(3):
        costs = costs - costs.logsumexp(1, keepdim=True)
        costs = costs - costs.logsumexp(2, keepdim=True)
    return costs.exp()


call("radiance_field", floats(7, 3), lambda m, x: m.net(torch.cat([x, *(f(2**k * x) for k in range(3) for f in (torch.sin, torch.cos))], -1)), net=lambda: mlp(21, 8, 4))
call("learned_fourier_features", floats(7, 2), lambda m, x: m.head(torch.cat([(x @ m.w).sin(), (x @ m.w).cos()], -1)), w=lambda: torch.randn(2, 5), head=lambda: nn.Linear(10, 1))
call("parameter_sampled_on_a_grid", lambda b: (torch.rand(b, 5, 2) * 2 - 1,), lambda m, x: F.grid_sample(m.planes.expand(x.size(0), -1, -1, -1), x[:, :, None], align_corners=True).squeeze(-1), planes=lambda: torch.randn(1, 3, 4, 4))
call("mixture_density", floats(4), lambda m, x: torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=m.weights(x)), torch.distributions.Normal(m.means(x), F.softplus(m.scales(x)) + 0.1), validate_args=False).log_prob(x[:, 0]),
     weights=lambda: nn.Linear(4, 3), means=lambda: nn.Linear(4, 3), scales=lambda: nn.Linear(4, 3))
call("inducing_points", floats(4), lambda m, x: (-(x[:, None] - m.z).square().sum(-1) / (2 * m.length.exp())).exp() @ m.a, z=lambda: torch.randn(5, 4), length=lambda: torch.zeros(1), a=lambda: torch.randn(5, 2))
call("invertible_flow", floats(6), flow, coupling=lambda: mlp(3, 5, 6), w=lambda: torch.randn(6, 6))
call("ordinary_differential_equation", floats(4), runge_kutta, f=lambda: mlp(4, 6, 4))
call("sinkhorn", floats(4, 3), sinkhorn, costs=lambda: nn.Linear(3, 4))
call("solve_with_a_parameter", floats(4), lambda m, x: torch.linalg.solve(m.a @ m.a.t() + torch.eye(4).to(x), x[..., None]).squeeze(-1), a=lambda: torch.randn(4, 4))
call("rotation", floats(4), lambda m, x: x @ torch.matrix_exp(m.a - m.a.t()), a=lambda: torch.randn(4, 4))
call("variational_autoencoder", lambda b: (torch.randn(b, 6), torch.randn(b, 3)), lambda m, x, e: torch.cat([m.decode(m.mean(x) + e * (0.5 * m.log_variance(x)).exp()), m.mean(x), m.log_variance(x)], 1),
     mean=lambda: nn.Linear(6, 3), log_variance=lambda: nn.Linear(6, 3), decode=lambda: nn.Linear(3, 6))


# Ways to write a model.
class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, w = ctx.saved_tensors
        return gradient @ w, gradient.flatten(0, -2).t() @ x.flatten(0, -2)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.LayerNorm(6)) for _ in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint_sequential(self.blocks, 2, x, use_reentrant=False)  # type: ignore[no-any-return]


class PartlyWithoutGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.layer(x).tanh()
        return self.head(self.layer(x).relu() * target + target)


def written_in_place(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.first(x)
    h.relu_()
    h = h * m.scale
    h.add_(m.shift)
    h[:, :2] = h[:, :2] * 2
    h.mul_(0.5)
    wide = x.new_zeros(x.size(0), 7)
    wide[:, 1:6] = h
    wide[:, 0] += m.scale[0]
    return m.last(wide)


def masked_tokens(m: Any, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[hidden] = m.token
    return m.layer(y) + m.layer(torch.where(hidden[..., None], m.token, x)).tanh()


call("functional_call", floats(6), lambda m, x: functional_call(m.net, {name: p * m.scale for name, p in m.net.named_parameters()}, (x,)), net=lambda: mlp(6, 5, 3), scale=lambda: torch.ones(1))
call("mapped_ensemble", floats(6), lambda m, x: vmap(lambda w, b: torch.tanh(x @ w + b))(m.w, m.b).movedim(0, 1), w=lambda: torch.randn(3, 6, 4), b=lambda: torch.randn(3, 4))
call("mapped_samples", floats(6), lambda m, x: vmap(lambda row: torch.tanh(m.layer(row)))(x), layer=lambda: nn.Linear(6, 4))
call("lists_and_dictionaries", floats(6), lambda m, x: torch.tanh(x @ m.listed[0] * m.named["a"]) @ m.listed[1] + m.named["b"],
     listed=lambda: nn.ParameterList([torch.randn(6, 6) for _ in range(2)]), named=lambda: nn.ParameterDict({"a": torch.randn(6), "b": torch.randn(6)}))
call("einsum_with_dots", floats(2, 3, 6), lambda m, x: torch.einsum("...d,de->...e", x, m.w) + torch.einsum("...td,td->...t", x, m.v)[..., None], w=lambda: torch.randn(6, 4), v=lambda: torch.randn(3, 6))
call("tensor_train", floats(6), lambda m, x: x @ torch.einsum("iaj,jbk->abik", m.a, m.b).reshape(6, 4), a=lambda: torch.randn(2, 2, 3), b=lambda: torch.randn(3, 3, 2))
call("kronecker", floats(6), lambda m, x: x @ torch.kron(m.a, m.b), a=lambda: torch.randn(2, 2), b=lambda: torch.randn(3, 2))
call("custom_function", floats(5, 6), lambda m, x: Doubled.apply(Product.apply(x, m.w)), w=lambda: torch.randn(4, 6))
call("custom_function_on_a_weight", floats(6), lambda m, x: F.linear(x, Doubled.apply(m.w)), w=lambda: torch.randn(4, 6))
call("fake_quantised_weight", floats(6), lambda m, x: F.linear(x, torch.fake_quantize_per_tensor_affine(m.w.float(), 0.1, 0, -128, 127).to(x)), w=lambda: torch.randn(4, 6))
call("binary_weight", floats(6), lambda m, x: F.linear(x, m.w + (m.w.sign() - m.w).detach()), w=lambda: torch.randn(4, 6))
call("weight_times_constants", floats(6), lambda m, x: F.linear(x, m.basis @ m.w) + m.table(m.places) @ m.v,
     basis=lambda: nn.Parameter(torch.randn(4, 3), requires_grad=False), w=lambda: torch.randn(3, 6), table=lambda: nn.Linear(2, 5), places=lambda: nn.Parameter(torch.randn(1, 2), requires_grad=False), v=lambda: torch.randn(5, 4))
add("orthogonal_by_default", lambda: orthogonal(nn.Linear(6, 4)), floats(6))
add("checkpointed_blocks", Checkpointed, floats(6))
add("partly_without_gradient", PartlyWithoutGradient, floats(6))
call("written_in_place", floats(6), written_in_place, first=lambda: nn.Linear(6, 5), scale=lambda: torch.rand(5) + 0.5, shift=lambda: torch.randn(5), last=lambda: nn.Linear(7, 2))
call("masked_tokens", lambda b: (torch.randn(b, 4, 6), torch.rand(b, 4) > 0.5), masked_tokens, token=lambda: torch.randn(6), layer=lambda: nn.Linear(6, 3))
call("triplet", floats(3, 6), lambda m, x: F.relu((m.net(x)[:, 0] - m.net(x)[:, 1]).norm(dim=-1) - (m.net(x)[:, 0] - m.net(x)[:, 2]).norm(dim=-1) + 1.0), net=lambda: mlp(6, 5, 3))
call("convolution_tied_to_its_transpose", floats(2, 6), lambda m, x: F.conv_transpose1d(F.conv1d(x, m.w, m.b).sigmoid(), m.w), w=lambda: torch.randn(3, 2, 3), b=lambda: torch.randn(3))


def _hugging_face() -> None:
    import transformers as hf

    class Logits(nn.Module):
        def __init__(self, net: nn.Module, of: Callable[..., torch.Tensor]) -> None:
            super().__init__()
            self.net, self.of = net.train(), of

        def forward(self, *x: torch.Tensor) -> torch.Tensor:
            return self.of(self.net, *x)

    def model(name: str, architecture: str, inputs: Inputs, of: Callable[..., torch.Tensor] | None = None, **options: Any) -> None:
        kind = getattr(hf, architecture)
        add(f"hugging_face_{name}", lambda: Logits(kind(kind.config_class(**options)), of or (lambda net, x: net(x).logits)), inputs)

    tokens: Inputs = lambda b: (torch.randint(4, 40, (b, 6)),)  # noqa: E731
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = {"vocab_size": 40, "max_position_embeddings": 16, **sizes, **quiet}
    decoder = {"vocab_size": 40, "max_position_embeddings": 16, "num_key_value_heads": 1, **sizes}
    pair = {
        "vocab_size": 40, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "dropout": 0.0,
    }  # fmt: skip
    model("distilbert", "DistilBertForSequenceClassification", tokens, vocab_size=40, dim=8, n_layers=2, n_heads=2, hidden_dim=12, max_position_embeddings=16, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)
    model("roberta", "RobertaForTokenClassification", tokens, **encoder, pad_token_id=1)
    model("albert", "AlbertForMaskedLM", tokens, **encoder, embedding_size=6)
    model("electra", "ElectraForPreTraining", tokens, **encoder, embedding_size=6)
    model("deberta", "DebertaV2ForSequenceClassification", tokens, **encoder, relative_attention=True, position_buckets=4, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", share_att_key=True, pooler_dropout=0.0)
    model("bart", "BartForConditionalGeneration", tokens, lambda net, x: net(input_ids=x, decoder_input_ids=x[:, :3]).logits, **pair, max_position_embeddings=16)
    model("whisper", "WhisperForConditionalGeneration", lambda b: (torch.randn(b, 4, 12), torch.randint(40, (b, 5))), lambda net, x, y: net(input_features=x, decoder_input_ids=y).logits,
          **pair, num_mel_bins=4, max_source_positions=6, max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    model("clip_text", "CLIPTextModelWithProjection", tokens, lambda net, x: net(x).text_embeds, vocab_size=40, **sizes, projection_dim=6, max_position_embeddings=16, eos_token_id=39, bos_token_id=1, pad_token_id=0)
    model("clip_vision", "CLIPVisionModelWithProjection", floats(3, 8, 8), lambda net, x: net(x).image_embeds, **sizes, projection_dim=6, image_size=8, patch_size=4)
    model("mistral", "MistralForCausalLM", tokens, **decoder, sliding_window=3)
    model("qwen3", "Qwen3ForCausalLM", tokens, **decoder, head_dim=4)
    model("gemma2", "Gemma2ForCausalLM", tokens, **decoder, head_dim=4, sliding_window=3)
    model("mamba", "MambaForCausalLM", tokens, vocab_size=40, hidden_size=8, state_size=4, num_hidden_layers=2, use_mambapy=False)
    model("xlnet", "XLNetForSequenceClassification", tokens, vocab_size=40, d_model=8, n_layer=2, n_head=2, d_inner=12, dropout=0.0, summary_last_dropout=0.0)
    model("funnel", "FunnelForSequenceClassification", tokens, vocab_size=40, block_sizes=[1, 1], d_model=8, n_head=2, d_head=4, d_inner=12, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    windows = {"image_size": 16, "patch_size": 2, "embed_dim": 4, "depths": [2, 2], "num_heads": [1, 2], "window_size": 2, "drop_path_rate": 0.0, **quiet}
    model("swin", "SwinForImageClassification", floats(3, 16, 16), **windows)
    model("swin_v2", "Swinv2ForImageClassification", floats(3, 16, 16), **windows)
    model("convnext", "ConvNextForImageClassification", floats(3, 16, 16), num_channels=3, patch_size=2, hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, image_size=16)
    model("wav2vec2", "Wav2Vec2ForSequenceClassification", floats(60), **sizes, conv_dim=(4, 4), conv_stride=(2, 2), conv_kernel=(3, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
          hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0, apply_spec_augment=False, feat_extract_norm="layer", classifier_proj_size=6)
    model("masked_bert", "BertForSequenceClassification", lambda b: (torch.randint(4, 40, (b, 6)), (torch.arange(6) < torch.randint(2, 7, (b, 1))).long()), lambda net, x, mask: net(input_ids=x, attention_mask=mask).logits, **encoder)


if importlib.util.find_spec("transformers"):
    _hugging_face()
