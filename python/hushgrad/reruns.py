"""Running a module again and again on changed batches, so that nothing of it stays.

Random numbers, buffers and what forward passes keep in attributes are afterwards as they were.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hushgrad.nested import tensors_in

__all__ = ["ConstantDraws", "HooksLeftOut", "TooManyDraws", "on_copies", "outputs_of", "random_states", "replace_samples", "without_samples"]

_OWN_ATTRIBUTES = frozenset(vars(nn.Module()))


@contextlib.contextmanager
def on_copies(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Yields what starts a run: random numbers, attributes and copies of the buffers, as they are now. Puts all back at the end."""
    # On copies, because the backward pass to come needs the buffers untouched, down to their version counters.
    owned = [(m._buffers, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None]
    devices = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    numpy = sys.modules.get("numpy")
    put_back = _attributes_of(module)
    python_state, numpy_state = random.getstate(), numpy.random.get_state() if numpy is not None else None

    def rewind() -> None:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        put_back()

    # As written: to compile for a few runs costs more than they do.
    with torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
        state = torch.get_rng_state()

        def restart() -> None:
            rewind()
            torch.set_rng_state(state)
            for device in devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(0)
            copies = {id(buffer): buffer.detach().clone() for _, _, buffer in owned}
            for buffers, name, buffer in owned:
                buffers[name] = copies[id(buffer)]

        try:
            yield restart
        finally:
            rewind()
            for buffers, name, buffer in owned:
                buffers[name] = buffer


def _attributes_of(module: nn.Module) -> Callable[[], None]:
    """What puts back the attributes that modules have now (an activation kept for later, a list of auxiliary losses)."""
    kept: list[tuple[nn.Module, dict[str, Any], list[tuple[Any, Any]]]] = []
    for child in module.modules():
        own = {name: value for name, value in vars(child).items() if name not in _OWN_ATTRIBUTES}
        kept.append((child, own, [(value, value.copy()) for value in own.values() if type(value) in (list, dict, set)]))

    def put_back() -> None:
        for child, own, containers in kept:
            attributes = vars(child)
            for name in [name for name in attributes if name not in _OWN_ATTRIBUTES and name not in own]:
                del attributes[name]
            attributes.update(own)
            for container, content in containers:
                container.clear()
                container.extend(content) if isinstance(container, list) else container.update(content)

    return put_back


def random_states() -> list[bytes]:
    """Of torch's generators, as they are now: another list after a draw."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states += [torch.cuda.get_rng_state(device) for device in range(torch.cuda.device_count())]
    return [state.numpy().tobytes() for state in states]


class HooksLeftOut(TorchFunctionMode):
    """Hooks on tensors that have no gradient, which a forward pass without gradients cannot take, are left out. ``seen``: any hook."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in (torch.Tensor.register_hook, torch.Tensor.retain_grad):
            self.seen = self.seen or func is torch.Tensor.register_hook
            if not args[0].requires_grad:
                return contextlib.nullcontext()
        return func(*args, **(kwargs or {}))


class TooManyDraws(Exception):
    """A forward pass that draws until it likes what it sees."""


class ConstantDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every random number is the same one, so that batches of different sizes can be compared. Nothing is dropped out.

    Raises:
        TooManyDraws: after 10,000 draws.
    """

    _draws = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self._draws += 1
        if self._draws > 10_000:
            raise TooManyDraws
        if func is torch.ops.aten.native_dropout.default:
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        drawn = func(*args, **kwargs)
        for t in tensors_in(drawn):
            if func.overloadpacket is torch.ops.aten.randperm:
                torch.arange(t.numel(), out=t)
            else:
                t.fill_(_constant(func, args, t))
        return drawn


def _constant(func: Any, args: tuple[Any, ...], drawn: torch.Tensor) -> float:
    if func.overloadpacket in (torch.ops.aten.bernoulli, torch.ops.aten.bernoulli_):
        return 1
    if func in (torch.ops.aten.randint.low, torch.ops.aten.randint.low_generator):
        return int(args[0])
    if func is getattr(torch.ops.aten.random_, "from"):
        return int(args[1])
    return 0.5 if drawn.is_floating_point() or drawn.is_complex() else 0


def outputs_of(value: Any) -> list[torch.Tensor]:
    """The tensors that have rows."""
    return [t for t in tensors_in(value) if t.dim() > 0]


def replace_samples(value: Any, replaced: torch.Tensor, batch: int, batch_dim: int, donors: torch.Tensor | None = None) -> Any:
    """donors: for each sample the one that takes its place if it is replaced; its neighbour by default."""
    if isinstance(value, torch.Tensor):
        dim = batch_dim if value.dim() > batch_dim and value.size(batch_dim) == batch else 0
        if value.dim() == 0 or value.size(dim) != batch:
            return value
        mask = replaced.to(value.device)
        shape = [1] * value.dim()
        shape[dim] = batch
        others = value.roll(1, dim) if donors is None else value.index_select(dim, donors.to(value.device))
        return torch.where(mask.view(shape), others, value)
    if isinstance(value, dict):
        return {key: replace_samples(item, replaced, batch, batch_dim, donors) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace_samples(item, replaced, batch, batch_dim, donors) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(replace_samples(item, replaced, batch, batch_dim, donors) for item in value)
    return value


def without_samples(value: Any, kept: torch.Tensor, batch: int, batch_dim: int) -> Any:
    """As ``replace_samples``, with the samples whose numbers are not in ``kept`` left out."""
    if isinstance(value, torch.Tensor):
        dim = batch_dim if value.dim() > batch_dim and value.size(batch_dim) == batch else 0
        if value.dim() == 0 or value.size(dim) != batch:
            return value
        return value.index_select(dim, kept.to(value.device))
    if isinstance(value, dict):
        return {key: without_samples(item, kept, batch, batch_dim) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(without_samples(item, kept, batch, batch_dim) for item in value))
    if isinstance(value, (list, tuple)):
        if len(value) == batch and not any(isinstance(item, torch.Tensor) and item.dim() > 0 and item.size(0) == batch for item in value):
            return type(value)(value[i] for i in kept.tolist())
        return type(value)(without_samples(item, kept, batch, batch_dim) for item in value)
    return value
