"""Models of the capture tests, each with the inputs of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Case:
    """build() -> module without randomness; inputs(B) -> its arguments. The batch is their dimension 0, or 1.

    forward_is_checked: it joins parameters with tensors that are not on record, which only the forward check can judge.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    batch_first: bool = True
    forward_is_checked: bool = False


CASES: dict[str, Case] = {}


def case(name: str, inputs: Callable[[int], tuple[torch.Tensor, ...]], batch_first: bool = True):
    def add(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        CASES[name] = Case(build, inputs, batch_first)
        return build

    return add


def floats(*shape: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda batch: (torch.randn(batch, *shape),)


def ids(limit: int, *shape: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda batch: (torch.randint(limit, (batch, *shape)),)


def add_linear_ranks() -> None:
    for rank, shape in enumerate([(7,), (5, 7), (3, 5, 7), (2, 3, 2, 7)], start=2):
        for bias in (True, False):
            CASES[f"linear_{rank}d_{'bias' if bias else 'nobias'}"] = Case(
                lambda bias=bias: nn.Sequential(nn.Linear(7, 6, bias=bias), nn.Tanh(), nn.Linear(6, 4, bias=bias)), floats(*shape)
            )
    CASES["linear_long"] = Case(lambda: nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 3)), floats(150, 3))
    CASES["linear_wide"] = Case(lambda: nn.Sequential(nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 64)), floats(9, 64))


add_linear_ranks()


def conv(dim: int, **options: object) -> Callable[[], nn.Module]:
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dim]
    return lambda: nn.Sequential(kind(4, 8, 3, **options), nn.Tanh(), kind(8, 4, 2, bias=False))


for _dim, _shape in ((1, (4, 19)), (2, (4, 11, 9)), (3, (4, 7, 8, 6))):
    CASES[f"conv{_dim}d"] = Case(conv(_dim), floats(*_shape))
    CASES[f"conv{_dim}d_stride"] = Case(conv(_dim, stride=2, padding=1), floats(*_shape))
    CASES[f"conv{_dim}d_dilation"] = Case(conv(_dim, dilation=2, padding=2), floats(*_shape))
    CASES[f"conv{_dim}d_groups"] = Case(conv(_dim, groups=4), floats(*_shape))
    CASES[f"conv{_dim}d_same"] = Case(conv(_dim, padding="same"), floats(*_shape))
    CASES[f"conv{_dim}d_circular"] = Case(conv(_dim, padding=1, padding_mode="circular"), floats(*_shape))
CASES["conv2d_depthwise"] = Case(lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), floats(4, 6, 6))
CASES["conv_transpose2d"] = Case(
    lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), nn.Tanh(), nn.Conv2d(6, 2, 1)),
    floats(4, 5, 6),
)
CASES["conv_transpose1d_groups"] = Case(lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), floats(4, 9))
CASES["conv2d_large"] = Case(
    lambda: nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, stride=2)), floats(3, 33, 29)
)
# Few positions for their channels: the norms come from products of pixels.
CASES["conv2d_few_positions"] = Case(
    lambda: nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, stride=2, bias=False)), floats(16, 6, 6)
)
CASES["conv2d_few_positions_groups"] = Case(lambda: nn.Conv2d(32, 32, (3, 2), padding=1, dilation=(1, 2), groups=2), floats(32, 5, 4))
CASES["conv_transpose2d_few_positions"] = Case(lambda: nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1), floats(32, 4, 3))
CASES["conv3d_few_positions"] = Case(lambda: nn.Conv3d(16, 24, 3, padding=1), floats(16, 3, 4, 2))


@case("conv2d_of_views", floats(3, 16, 4, 4))
class _ConvolutionOfViews(nn.Module):
    """Several images a sample, each through the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(16, 32, 3, padding=1), nn.Linear(32, 3)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(views.flatten(0, 1)).relu().mean((2, 3)).unflatten(0, (-1, 3)).mean(1))


@case("embedding_mean", ids(11, 6))
class _EmbeddingMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 5, padding_idx=3)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.table(tokens)).mean(1))


CASES["embedding_scalar_ids"] = Case(lambda: nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 3)), ids(11))
CASES["layer_norm"] = Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), floats(5, 6))
CASES["layer_norm_2d"] = Case(lambda: nn.Sequential(nn.LayerNorm((5, 6)), nn.Flatten(), nn.Linear(30, 3)), floats(5, 6))
CASES["group_norm"] = Case(
    lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)), floats(3, 6, 6)
)
CASES["instance_norm"] = Case(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)), floats(3, 6, 6))
CASES["rms_norm"] = Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3)), floats(5, 6))
CASES["prelu"] = Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 3)), floats(6))
CASES["bilinear"] = Case(lambda: nn.Bilinear(4, 5, 3), lambda b: (torch.randn(b, 4), torch.randn(b, 5)))
CASES["double"] = Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), lambda b: (torch.randn(b, 6).double(),))


@case("positional_table", floats(5, 6))
class _Positional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 6))
        self.scale = nn.Parameter(torch.randn(6))
        self.shift = nn.Parameter(torch.randn(1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh((x + self.table[: x.size(1)]) * self.scale - self.shift))


@case("class_token", floats(5, 6))
class _ClassToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.mix = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1)
        return self.mix(tokens).tanh().sum(1)


@case("used_twice", floats(5, 6))
class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(self.layer(x)))


@case("tied_embedding", ids(11, 6))
class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 5)
        self.mix = nn.Linear(5, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.linear(torch.tanh(self.mix(self.table(tokens))), self.table.weight)


@case("free_matmul", floats(5, 6))
class _FreeMatmul(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(4, 6))
        self.right = nn.Parameter(torch.randn(6, 3))
        self.mixing = nn.Parameter(torch.randn(2, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.einsum("btd,pd->btp", x, self.left).tanh()
        return h.sum(-1, keepdim=True) + torch.matmul(self.mixing, x).sum(1, keepdim=True) @ self.right


CASES["weight_norm"] = Case(
    lambda: nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 2)), floats(4, 6)
)
CASES["lstm"] = Case(lambda: _First(nn.LSTM(6, 5, batch_first=True)), floats(4, 6))
CASES["gru"] = Case(lambda: _First(nn.GRU(6, 5, num_layers=2, batch_first=True, bidirectional=True)), floats(4, 6))
CASES["rnn_batch_second"] = Case(lambda: _First(nn.RNN(6, 5)), lambda b: (torch.randn(4, b, 6),), batch_first=False)
CASES["attention"] = Case(lambda: _SelfAttention(batch_first=True), floats(5, 8))
CASES["transformer_layer"] = Case(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), floats(5, 8))
CASES["attention_batch_second"] = Case(
    lambda: _SelfAttention(batch_first=False), lambda b: (torch.randn(5, b, 8),), batch_first=False
)


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class _SelfAttention(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x, x, need_weights=False)[0]


@case("unused_and_partial", floats(6))
class _Partial(nn.Module):
    """One parameter is never used, one only by samples whose first feature is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.unused = nn.Linear(3, 3)
        self.some = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(x)
        return torch.where(x[:, :1] > 0, h * self.some, h)


@case("lookup", ids(7, 5))
class _Lookup(nn.Module):
    """Indexing, gathering and selecting from a free parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 4))
        self.pair = nn.Parameter(torch.randn(2, 4))

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.table[index]) * self.pair[0] + self.pair[1]


@case("lora", floats(5, 6))
class _LoRA(nn.Module):
    """A frozen weight with a merged low-rank update."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6), requires_grad=False)
        self.a = nn.Parameter(torch.randn(2, 6))
        self.b = nn.Parameter(torch.randn(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight + 0.5 * self.b @ self.a)


@case("residual_group_norm", floats(3, 8, 8))
class _ResidualNet(nn.Module):
    """A small residual network: strides, a projection, inplace activations, global pooling."""

    class Block(nn.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.norm1, self.norm2 = nn.GroupNorm(2, out), nn.GroupNorm(2, out)
            self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.project = nn.Conv2d(channels, out, 1, stride, bias=False) if stride > 1 or channels != out else nn.Identity()
            self.act = nn.SiLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.act(self.norm1(self.first(x)))
            h = self.norm2(self.second(h))
            h += self.project(x)
            return self.act(h)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(self.Block(4, 4, 1), self.Block(4, 6, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.max_pool2d(self.stem(x), 2)).mean((2, 3)))


@case("u_net", floats(1, 8, 8))
class _UNet(nn.Module):
    """Two levels with a skip connection that joins channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.join, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level1 = F.relu(self.down1(x))
        level2 = F.relu(self.down2(F.max_pool2d(level1, 2)))
        return self.out(F.relu(self.join(torch.cat([level1, self.up(level2)], 1))))


@case("two_branches", lambda b: (torch.randn(b, 6), torch.randint(5, (b, 3))))
class _Tabular(nn.Module):
    """Numbers and categories, joined; several tables."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Linear(6, 4)
        self.tables = nn.ModuleList(nn.Embedding(5, 2) for _ in range(3))
        self.head = nn.Sequential(nn.ELU(), nn.Linear(10, 2))

    def forward(self, x: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        embedded = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        return self.head(torch.cat([self.numbers(x), *embedded], 1))


@case("gated_low_rank", floats(5, 6))
class _Gated(nn.Module):
    """Parameters of zero and one dimension, squared and shared by two operators."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.gate = nn.Parameter(torch.tensor(0.7))
        self.scale = nn.Parameter(torch.rand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.gate) * self.layer(x) + x * self.scale.square()
        return (h * self.gate).cumsum(1) * self.scale.softmax(0)


@case("embedding_bag", ids(11, 6))
class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(11, 4, mode="mean")
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(tokens))


CASES["flattened_tokens"] = Case(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), _MergeTime()), floats(4, 6))
CASES["encoder_decoder"] = Case(lambda: _EncoderDecoder(), lambda b: (torch.randn(b, 4, 8), torch.randn(b, 3, 8)))


class _MergeTime(nn.Module):
    """[B, T, d] -> [B*T, d], as language models hand their logits to the criterion."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1)


class _EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.net(source, target, tgt_mask=nn.Transformer.generate_square_subsequent_mask(target.size(1)))
