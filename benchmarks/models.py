"""The networks that the step benchmark times. Random weights and data: only their shapes matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Workload:
    """A model with one batch. ``loss(model(inputs), targets)`` is a mean over the batch."""

    name: str
    batch: int
    build: Callable[[], nn.Module]
    data: Callable[[], tuple[torch.Tensor, torch.Tensor]]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.flatten(0, -2), target.flatten())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def cnn() -> nn.Module:
    channels = [3, 32, 32, 64, 64, 128, 128]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(channels, channels[1:])):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        if i % 2 == 1:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Learned positions through an Embedding on explicit ids, which every library compared here accepts."""

    def __init__(self, width: int, layers: int, time: int, words: int) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(time, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.size(1)).expand_as(ids)
        return self.head(self.norm(self.blocks(self.words(ids) + self.positions(positions))))


class BasicBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(min(32, out), out), nn.GroupNorm(min(32, out), out)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.short = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.GroupNorm(min(32, out), out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm2(self.second(F.relu(self.norm1(self.first(x))))) + self.short(x))


class ResNet18(nn.Module):
    """For 32x32 images, with GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.GroupNorm(32, 64)
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(BasicBlock(*w) for w in widths))
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class SequenceClassifier(nn.Module):
    """Two layers of LSTM over a series of measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(64, 256, 2, batch_first=True), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Recommender(nn.Module):
    """26 tables of 100,000 x 16 with one id each, 13 numbers, and the pairwise products of their vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(100_000, 16) for _ in range(26))
        self.bottom = nn.Sequential(nn.Linear(13, 128), nn.ReLU(), nn.Linear(128, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(16 + 27 * 26 // 2, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
        rows, columns = torch.tril_indices(27, 27, -1)
        self.pairs = (rows, columns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers, ids = x[:, :13], x[:, 13:].long()
        dense = self.bottom(numbers)
        z = torch.stack([dense, *(table(ids[:, i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(z, z.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([dense, products], 1))


def bert_small() -> nn.Module:
    """BERT-small of Hugging Face from its configuration; the tokens' logits of a classifier."""
    from transformers import BertConfig, BertForTokenClassification

    config = BertConfig(
        vocab_size=30522, hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048, num_labels=10,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = BertForTokenClassification(config)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.net(ids).logits

    return Logits()


def visits(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(100_000, (batch, 26)).float()  # below 2^24: exact in float32
    return torch.cat([torch.randn(batch, 13), ids], 1), torch.randint(10, (batch,))


def images(batch: int, *shape: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    return lambda: (torch.randn(batch, *shape), torch.randint(10, (batch,)))


def text(batch: int, time: int, words: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    return lambda: (torch.randint(words, (batch, time)), torch.randint(words, (batch, time)))


WORKLOADS = {
    w.name: w
    for w in (
        Workload("mlp", 256, mlp, images(256, 784)),
        Workload("cnn", 64, cnn, images(64, 3, 32, 32)),
        Workload("gpt_d256", 16, lambda: GPT(256, 4, 128, 2000), text(16, 128, 2000)),
        Workload("gpt_d512", 8, lambda: GPT(512, 4, 128, 2000), text(8, 128, 2000)),
        Workload("bert_small", 16, bert_small, lambda: (torch.randint(30522, (16, 128)), torch.randint(10, (16, 128)))),
        Workload("resnet18_gn", 32, ResNet18, images(32, 3, 32, 32)),
        Workload("lstm", 32, SequenceClassifier, images(32, 64, 64)),
        Workload("recommender", 1024, Recommender, lambda: visits(1024)),
    )
}
