"""What torch.compile and torch.distributed wrap around a model."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine
from hushgrad.errors import Unsupported

BACKEND = "aot_eager"  # as opaque to autograd as the compilers that need a tool chain


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * torch.sigmoid(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(self.first(x)))


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Of one step without noise on one batch."""
    optimizer, loader = torch.optim.SGD(module.parameters(), 0.0), DataLoader(TensorDataset(x), batch_size=len(x))
    PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=0.5, loss_reduction="sum", poisson_sampling=False
    )  # fmt: skip
    for (rows,) in loader:
        module(rows).square().sum().backward()
        optimizer.step()
    return [p.grad for p in module.parameters()]  # type: ignore[misc]


def same_start(build: Any) -> Any:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return build()


def whole() -> nn.Module:
    return torch.compile(Net(), backend=BACKEND)  # type: ignore[return-value]


def in_place() -> nn.Module:
    net = Net()
    net.compile(backend=BACKEND)
    return net


def a_part_with_parameters() -> nn.Module:
    net = Net()
    net.last = torch.compile(net.last, backend=BACKEND)  # type: ignore[assignment]
    return net


@pytest.mark.parametrize("build", [whole, in_place, a_part_with_parameters])
def test_compiled_models_train_as_they_were_written_and_say_so(build: Any) -> None:
    expected = gradients(same_start(Net), x := torch.linspace(-1, 1, 48).view(8, 6))
    module = same_start(build)
    with pytest.warns(UserWarning, match="torch.compile.* runs as it was written, and only what lies between is compiled"):
        found = gradients(module, x)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(module(x), same_start(Net)(x))


def nodes_of(output: torch.Tensor) -> list[str]:
    waiting, seen = [output.grad_fn], {}
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen[node] = type(node).__name__
            waiting.extend(child for child, _ in node.next_functions)
    return list(seen.values())


class Gated(nn.Module):
    """Chains of operators between parameters, a weight computed from parameters, a buffer, and shapes that follow the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("shift", torch.linspace(0, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        h = torch.tanh(h) * torch.sigmoid(h) + 0.5 * h.square()
        weight = torch.softmax(self.scale + self.shift, 0)
        h = self.norm(h) * weight
        h = h.view(x.size(0), 2, 4).transpose(1, 2).reshape(x.size(0), 8)
        return self.last(torch.sin(h) + torch.cos(h).square())


@pytest.mark.parametrize("dynamic", [None, True])
def test_what_lies_between_parameters_is_compiled_and_exact(dynamic: bool | None) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    twin = Gated()
    module = torch.compile(copy.deepcopy(twin), backend=BACKEND, dynamic=dynamic)
    x = torch.randn(19, 6)
    optimizer, loader = torch.optim.SGD(module.parameters(), 0.0), DataLoader(TensorDataset(x), batch_size=8)
    with pytest.warns(UserWarning, match="what lies between is compiled"):
        PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=2.0, loss_reduction="sum", poisson_sampling=False
        )  # fmt: skip
    reference = twin.double()
    for (rows,) in loader:  # batches of 8, 8 and 3
        output = module(rows)
        assert nodes_of(output).count("CompiledFunctionBackward") == 2
        output.square().sum().backward()
        optimizer.step()
        expected = [torch.zeros_like(p) for p in reference.parameters()]
        for row in rows.double():
            found = torch.autograd.grad(reference(row[None]).square().sum(), list(reference.parameters()))
            norm = sum(g.square().sum() for g in found).sqrt()
            expected = [e + g * min(1.0, float(2.0 / norm)) for e, g in zip(expected, found)]
        torch.testing.assert_close([p.grad for p in module.parameters()], [e.float() for e in expected], rtol=1e-5, atol=1e-6)
        optimizer.zero_grad()


def test_parts_compiled_for_changing_shapes_can_be_probed() -> None:
    x = torch.linspace(-1, 1, 48).view(8, 6)
    expected = gradients(same_start(Net), x)
    net = same_start(Net)
    net.hidden = torch.compile(net.hidden, backend=BACKEND, dynamic=True)
    torch.testing.assert_close(gradients(net, x), expected)


def test_a_model_compiled_after_make_private_is_refused_with_advice() -> None:
    net, x = same_start(Net), torch.randn(8, 6)
    optimizer, loader = torch.optim.SGD(net.parameters(), 0.0), DataLoader(TensorDataset(x), batch_size=8)
    PrivacyEngine(ledger=":memory:").make_private(module=net, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    compiled = torch.compile(net, backend=BACKEND)
    batch = next(rows for rows, in loader if len(rows) > 1)
    with pytest.raises(Unsupported, match="compiled by torch.compile.*Call torch.compile.model. before make_private"):
        compiled(batch)


@pytest.mark.parametrize("backend", ["eager", BACKEND])
def test_parts_without_parameters_stay_compiled(backend: str) -> None:
    x = torch.linspace(-1, 1, 48).view(8, 6)
    expected = gradients(same_start(Net), x)
    net = same_start(Net)
    net.hidden = torch.compile(lambda h: torch.tanh(h) * torch.sigmoid(h), backend=backend)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gradients(net, x)
    torch.testing.assert_close(found, expected)
    assert not any("runs as it was written" in str(warning.message) for warning in caught)
    if backend == BACKEND:
        assert "CompiledFunctionBackward" in type(net.hidden(torch.ones(2, requires_grad=True)).grad_fn).__name__


def test_a_compiled_function_of_parameters_is_refused_with_advice() -> None:
    net = same_start(Net)
    net.forward = torch.compile(net.forward, backend=BACKEND)
    with pytest.raises(Unsupported, match="compiled by torch.compile.*without trainable parameters"):
        gradients(net, torch.randn(8, 6))


def test_wrappers_that_exchange_gradients_are_refused() -> None:
    wrapped = nn.DataParallel(Net())
    with pytest.raises(Unsupported, match="'' .DataParallel.*pass what it wraps"):
        gradients(wrapped, torch.randn(8, 6))
