"""More models of the capture tests: every layer's options, free parameters, reparametrised and shared weights, networks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from capture_models import CASES, Case, case, conv, floats, ids
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm


class Call(nn.Module):
    """A module whose forward is a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., torch.Tensor], **members: Any) -> None:
        super().__init__()
        self.function = forward
        for name, member in members.items():
            setattr(self, name, nn.Parameter(member) if isinstance(member, torch.Tensor) else member)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self, *inputs)


# Of these a frozen tensor, a buffer or a mask joins a parameter; the graph alone does not tell it from data.
CHECKED_FORWARDS = ("upsampled_parameter", "spectral_norm", "orthogonal", "hugging_face")


def add(name: str, build: Callable[[], nn.Module], inputs: Callable[[int], tuple[torch.Tensor, ...]], batch_first: bool = True) -> None:
    assert name not in CASES
    CASES[name] = Case(build, inputs, batch_first, name.startswith(CHECKED_FORWARDS))


def call(name: str, inputs: Callable[[int], tuple[torch.Tensor, ...]], forward: Callable[..., torch.Tensor], **members: Callable[[], Any]) -> None:
    """members: name -> how to build it; a tensor becomes a parameter."""
    add(name, lambda: Call(forward, **{key: build() for key, build in members.items()}), inputs)


# Convolutions: what the first table leaves out.
for _mode in ("reflect", "replicate"):
    for _dim, _shape in ((1, (4, 9)), (2, (4, 7, 6)), (3, (4, 5, 4, 6))):
        add(f"conv{_dim}d_{_mode}", conv(_dim, padding=1, padding_mode=_mode), floats(*_shape))
add("conv_transpose3d", lambda: nn.ConvTranspose3d(4, 6, 2, stride=2, bias=False), floats(4, 3, 4, 3))
add("conv_transpose2d_dilated_groups", lambda: nn.ConvTranspose2d(4, 8, 3, dilation=2, groups=2), floats(4, 5, 4))
add("conv1d_depthwise_multiplier", lambda: nn.Conv1d(4, 12, 5, groups=4, padding=2), floats(4, 9))
add("conv2d_stride_groups_dilation", lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), dilation=(1, 2), groups=2, padding=(1, 2)), floats(4, 9, 8))
add("conv2d_kernel_of_the_image", lambda: nn.Conv2d(3, 5, (6, 5)), floats(3, 6, 5))
add("conv2d_channels_last", conv(2), lambda b: (torch.randn(b, 4, 11, 9).to(memory_format=torch.channels_last),))
add("conv2d_weights_channels_last", lambda: conv(2)().to(memory_format=torch.channels_last), floats(4, 11, 9))

# Tables.
for _mode in ("sum", "mean", "max"):
    add(f"embedding_bag_{_mode}_repeated", lambda mode=_mode: nn.EmbeddingBag(3, 4, mode=mode), ids(3, 6))
add("embedding_bag_padding", lambda: nn.EmbeddingBag(5, 4, mode="mean", padding_idx=2), ids(5, 6))
call(
    "embedding_bag_weighted", lambda b: (torch.randint(5, (b, 6)), torch.randn(b, 6)),
    lambda m, tokens, weights: m.bag(tokens, per_sample_weights=weights), bag=lambda: nn.EmbeddingBag(5, 4, mode="sum"),
)
call(
    "embedding_bag_learned_weights", ids(5, 6),
    lambda m, tokens: m.bag(tokens, per_sample_weights=m.importance(tokens).squeeze(-1).exp()),
    bag=lambda: nn.EmbeddingBag(5, 4, mode="sum"), importance=lambda: nn.Embedding(5, 1),
)
call(
    "embedding_bag_offsets", lambda b: (torch.randint(5, (b, 6)),),
    lambda m, tokens: m.bag(tokens.flatten(), torch.arange(0, tokens.numel(), 6)), bag=lambda: nn.EmbeddingBag(5, 4),
)
call("embedding_padding_zero", ids(7, 5), lambda m, t: m.table(t).tanh().sum(1), table=lambda: nn.Embedding(7, 3, padding_idx=0))
call("two_tables_of_one_weight", ids(7, 5), lambda m, t: m.table(t).mean(1) - m.table(t.flip(1)).amax(1), table=lambda: nn.Embedding(7, 3))

# Normalisation.
add("layer_norm_without_bias", lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, bias=False)), floats(5, 6))
add("instance_norm_1d", lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4, affine=True)), floats(3, 9))
add("instance_norm_3d", lambda: nn.Sequential(nn.Conv3d(3, 4, 2), nn.InstanceNorm3d(4, affine=True), nn.Tanh()), floats(3, 4, 5, 4))
add("group_norm_vector", lambda: nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Tanh()), floats(6))
add("local_response_norm", lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(2)), floats(3, 6, 6))
add("prelu_shared", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()), floats(3, 6, 6))
add("glu", lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 3)), floats(5, 6))

# Recurrence.
for _kind in (nn.RNN, nn.GRU, nn.LSTM):
    for _label, _options in {
        "layers": {"num_layers": 2},
        "bidirectional": {"bidirectional": True},
        "without_bias": {"bias": False},
        "all": {"num_layers": 2, "bidirectional": True},
    }.items():
        _name = f"{_kind.__name__.lower()}_{_label}"
        call(_name, floats(4, 6), lambda m, x: m.layer(x)[0], layer=lambda k=_kind, o=_options: k(6, 5, batch_first=True, **o))
    CASES[f"{_kind.__name__.lower()}_batch_second"] = Case(
        lambda k=_kind: Call(lambda m, x: m.layer(x)[0], layer=k(6, 5)), lambda b: (torch.randn(4, b, 6),), batch_first=False
    )
call("lstm_projection", floats(4, 6), lambda m, x: m.layer(x)[0], layer=lambda: nn.LSTM(6, 5, proj_size=3, batch_first=True))
call("lstm_last_state", floats(4, 6), lambda m, x: m.layer(x)[1][0].transpose(0, 1), layer=lambda: nn.LSTM(6, 5, 2, batch_first=True))
call("lstm_all_states", floats(4, 6), lambda m, x: torch.cat([m.layer(x)[0][:, -1], *(s[0] for s in m.layer(x)[1])], 1), layer=lambda: nn.LSTM(6, 5, batch_first=True))
call(
    "lstm_initial_state", lambda b: (torch.randn(b, 4, 6), torch.randn(b, 5)),
    lambda m, x, h: m.layer(x, (torch.tanh(m.start(h))[None], h[None]))[0], layer=lambda: nn.LSTM(6, 5, batch_first=True), start=lambda: nn.Linear(5, 5),
)
call("lstm_learned_initial_state", floats(4, 6), lambda m, x: m.layer(x, (m.h.expand(1, x.size(0), 5).contiguous(), m.c.expand(1, x.size(0), 5).contiguous()))[0],
     layer=lambda: nn.LSTM(6, 5, batch_first=True), h=lambda: torch.randn(5), c=lambda: torch.randn(5))
call("lstm_frozen_in_part", floats(4, 6), lambda m, x: m.layer(x)[0], layer=lambda: _frozen(nn.LSTM(6, 5, batch_first=True), "weight_hh_l0"))
call("lstm_used_twice", floats(4, 6), lambda m, x: m.layer(m.layer(x)[0] + x)[0], layer=lambda: nn.LSTM(6, 6, batch_first=True))


def _frozen(module: nn.Module, *names: str) -> nn.Module:
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


def _cells(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = c = torch.zeros(x.size(0), 5, dtype=x.dtype)
    for t in range(x.size(1)):
        h, c = m.cell(x[:, t], (h, c))
    return h


call("lstm_cell", floats(4, 6), _cells, cell=lambda: nn.LSTMCell(6, 5))

# Attention.
call(
    "attention_kdim_vdim", lambda b: (torch.randn(b, 4, 8), torch.randn(b, 5, 6), torch.randn(b, 5, 7)),
    lambda m, q, k, v: m.layer(q, k, v)[0], layer=lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=7, batch_first=True),
)
call("attention_bias_k", floats(5, 8), lambda m, x: m.layer(x, x, x)[0], layer=lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True))
call("attention_masked", lambda b: (torch.randn(b, 5, 8), torch.rand(b, 5) > 0.8), lambda m, x, mask: m.layer(x, x, x, key_padding_mask=mask & (torch.arange(5) > 0))[0],
     layer=lambda: nn.MultiheadAttention(8, 2, batch_first=True))
add("decoder_layer", lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True), lambda b: (torch.randn(b, 4, 8), torch.randn(b, 3, 8)))
add("encoder_batch_second", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 2, enable_nested_tensor=False),
    lambda b: (torch.randn(5, b, 8),), batch_first=False)
call(
    "flash_attention", floats(5, 8),
    lambda m, x: F.scaled_dot_product_attention(*(m.qkv(x).view(x.size(0), 5, 3, 2, 4).permute(2, 0, 3, 1, 4)), is_causal=True).transpose(1, 2).flatten(2),
    qkv=lambda: nn.Linear(8, 24),
)

# Free parameters.
call("functional_linear_3d", floats(5, 6), lambda m, x: F.linear(x, m.w, m.b), w=lambda: torch.randn(4, 6), b=lambda: torch.randn(4))
call("functional_conv", floats(3, 8), lambda m, x: F.conv1d(x, m.w), w=lambda: torch.randn(4, 3, 3))
call("batched_matmul", floats(5, 6), lambda m, x: torch.bmm(m.left.expand(x.size(0), 2, 5), x) @ m.right, left=lambda: torch.randn(2, 5), right=lambda: torch.randn(6, 3))
call("einsum_heads", floats(5, 6), lambda m, x: torch.einsum("btd,hde->bhte", x, m.w).tanh().sum(1), w=lambda: torch.randn(2, 6, 3))
call("einsum_elementwise", floats(5, 6), lambda m, x: torch.einsum("btd,td,d->bt", x, m.w, m.v), w=lambda: torch.randn(5, 6), v=lambda: torch.randn(6))
call("addmm", floats(6), lambda m, x: torch.addmm(m.b, x, m.w, beta=0.5, alpha=2.0), w=lambda: torch.randn(6, 3), b=lambda: torch.randn(3))
call("addcmul", floats(6), lambda m, x: torch.addcmul(m.b, x, m.w, value=0.7), w=lambda: torch.randn(6), b=lambda: torch.randn(6))
call("lerp", floats(6), lambda m, x: torch.lerp(x.sin(), x.cos(), torch.sigmoid(m.w)), w=lambda: torch.randn(6))
call("pow_and_divide", floats(6), lambda m, x: x.abs().add(0.5) ** m.p / m.q.exp(), p=lambda: torch.rand(6), q=lambda: torch.randn(1))
call("where_on_a_parameter", floats(6), lambda m, x: torch.where(x > 0, m.a, m.b * x), a=lambda: torch.randn(6), b=lambda: torch.randn(1, 6))
call("gather_on_a_parameter", ids(7, 5), lambda m, t: torch.gather(m.w.expand(t.size(0), 7), 1, t) + m.v.index_select(0, t.flatten()).view(t.size(0), 5, 2).sum(-1), w=lambda: torch.randn(7), v=lambda: torch.randn(7, 2))
call("chunk_and_cat", floats(6), lambda m, x: x @ torch.cat([part.t().flip(0) for part in m.w.chunk(2)], 1), w=lambda: torch.randn(4, 6))
call("cast_parameter", floats(6), lambda m, x: (x.double() @ m.w.double()).to(x.dtype), w=lambda: torch.randn(6, 3))
call("stacked_parameters", floats(6), lambda m, x: x @ torch.stack([m.a, m.b], 1), a=lambda: torch.randn(6), b=lambda: torch.randn(6))
call("vector_dot", floats(6), lambda m, x: (x @ m.w)[:, None] + torch.mv(x, m.v)[:, None], w=lambda: torch.randn(6), v=lambda: torch.randn(6))
call("distance_to_centres", floats(6), lambda m, x: torch.cdist(x[:, None], m.c.expand(x.size(0), 4, 6)).squeeze(1), c=lambda: torch.randn(4, 6))
call("learned_query", floats(5, 8), lambda m, x: F.scaled_dot_product_attention(m.q.expand(x.size(0), 2, 8), x, x), q=lambda: torch.randn(2, 8))
call("parameter_of_zero_dimensions", floats(6), lambda m, x: m.s * x + m.s.exp(), s=lambda: torch.tensor(0.3))
call("upsampled_parameter", floats(3, 8, 8), lambda m, x: m.conv(x + F.interpolate(m.position, size=8, mode="bilinear")), position=lambda: torch.randn(1, 3, 4, 4), conv=lambda: nn.Conv2d(3, 2, 3))


# Reparametrised and shared weights.
class _Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def _parametrised(module: nn.Module, how: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", how)
    return module


add("spectral_norm_frozen_estimate", lambda: nn.Sequential(spectral_norm(nn.Linear(6, 5)).eval(), nn.Tanh()), floats(4, 6))
add("spectral_norm_conv", lambda: spectral_norm(nn.Conv2d(3, 4, 3)).eval(), floats(3, 6, 6))
add("weight_norm_conv", lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3)), floats(3, 7))
add("symmetric", lambda: _parametrised(nn.Linear(6, 6), _Symmetric()), floats(4, 6))
add("orthogonal", lambda: orthogonal(nn.Linear(6, 4), use_trivialization=False), floats(6))
call("lora_adapter", floats(5, 6), lambda m, x: m.base(x) + 0.5 * m.b(m.a(x)), base=lambda: _frozen(nn.Linear(6, 4), "weight", "bias"), a=lambda: nn.Linear(6, 2, bias=False), b=lambda: nn.Linear(2, 4, bias=False))
call("tied_encoder_decoder", floats(6), lambda m, x: F.linear(F.linear(x, m.w).tanh(), m.w.t()), w=lambda: torch.randn(3, 6))
call("siamese", lambda b: (torch.randn(b, 6), torch.randn(b, 6)), lambda m, x, y: (m.net(x) - m.net(y)).square(), net=lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
call("siamese_conv", lambda b: (torch.randn(b, 3, 6, 6), torch.randn(b, 3, 6, 6)), lambda m, x, y: (m.net(x) - m.net(y)).square(), net=lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.Conv2d(5, 2, 2)))
call("recursion", floats(6), lambda m, x: m.out(_recurse(m, x, 3)), step=lambda: nn.Linear(6, 6), out=lambda: nn.Linear(6, 2))
call("weight_shared_across_operators", floats(6, 5), lambda m, x: F.conv1d(x, m.w[..., None]).sum(2) + F.linear(x.mean(2), m.w), w=lambda: torch.randn(4, 6))
call("bias_shared", floats(6), lambda m, x: F.linear(F.linear(x, m.w, m.b).tanh(), m.v, m.b), w=lambda: torch.randn(4, 6), v=lambda: torch.randn(4, 4), b=lambda: torch.randn(4))


def _recurse(m: Any, x: torch.Tensor, depth: int) -> torch.Tensor:
    return x if depth == 0 else _recurse(m, torch.tanh(m.step(x)), depth - 1)


# Networks.
@case("graph_network", lambda b: (torch.randn(b, 6, 4), (torch.rand(b, 6, 6) > 0.5).float()))
class _GraphNetwork(nn.Module):
    """Messages along each sample's own adjacency matrix, and attention over neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(4, 5), nn.Linear(9, 5)
        self.source, self.target = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))
        self.head = nn.Linear(5, 2)

    def forward(self, nodes: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        adjacency = adjacency.to(nodes.dtype)
        h = torch.cat([nodes, adjacency @ self.message(nodes)], -1)
        h = torch.tanh(self.update(h))
        scores = F.leaky_relu((h @ self.source)[:, :, None] + (h @ self.target)[:, None, :], 0.2)
        weights = torch.softmax(scores.masked_fill(adjacency == 0, -1e4), -1)
        return self.head((weights @ h).sum(1))


@case("recommender", lambda b: (torch.randn(b, 6), torch.randint(50, (b, 4)), torch.randint(50, (b, 3))))
class _Recommender(nn.Module):
    """Dense features, categories and a bag of visited items; pairwise products of the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.tables = nn.ModuleList(nn.Embedding(50, 4) for _ in range(4))
        self.visited = nn.EmbeddingBag(50, 4, mode="sum")
        self.top = nn.Sequential(nn.Linear(4 + 15, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, dense: torch.Tensor, categories: torch.Tensor, visited: torch.Tensor) -> torch.Tensor:
        vectors = [self.bottom(dense), *(table(categories[:, i]) for i, table in enumerate(self.tables)), self.visited(visited)]
        z = torch.stack(vectors, 1)
        rows, columns = torch.tril_indices(6, 6, -1)
        pairs = torch.bmm(z, z.transpose(1, 2))[:, rows, columns]
        return self.top(torch.cat([vectors[0], pairs], 1))


@case("mixture_of_experts", floats(5, 6))
class _Experts(nn.Module):
    """Soft routing of each token over three experts kept in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.weight, self.bias = nn.Parameter(torch.randn(3, 6, 4)), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = torch.einsum("btd,edo->bteo", x, self.weight) + self.bias
        return (torch.softmax(self.router(x), -1)[..., None] * outputs.tanh()).sum(2)


def _hugging_face() -> None:
    import transformers as hf

    class Logits(nn.Module):
        def __init__(self, net: nn.Module, name: str) -> None:
            super().__init__()
            self.net, self.name = net.train(), name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.name == "t5":
                return self.net(input_ids=x, decoder_input_ids=x[:, :3]).logits
            return self.net(x).logits

    def add_model(name: str, build: Callable[[], nn.Module], inputs: Callable[[int], tuple[torch.Tensor, ...]]) -> None:
        add(f"hugging_face_{name}", lambda: Logits(build(), name), inputs)

    tokens = ids(40, 6)
    add_model("bert", lambda: hf.BertForSequenceClassification(hf.BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)), tokens)
    add_model("gpt2", lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, n_embd=8, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)), tokens)
    add_model("llama", lambda: hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=12, max_position_embeddings=16)), tokens)
    add_model("vit", lambda: hf.ViTForImageClassification(hf.ViTConfig(image_size=8, patch_size=4, num_channels=3, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)), floats(3, 8, 8))
    add_model("t5", lambda: hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0)), tokens)


if importlib.util.find_spec("transformers"):
    _hugging_face()
