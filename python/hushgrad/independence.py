"""Checks by experiment that a model treats samples independently.

The probes of the C++ core see what flows backwards. What the graph does not record (statistics taken of the inputs, of
detached values, or in a module without parameters) is seen here, forwards: other samples are replaced, and the outputs of
the samples that stayed must not move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from hushgrad.errors import Unsupported
from hushgrad.left_out import check_backward, check_without_others, some_of
from hushgrad.nested import tensors_in
from hushgrad.reruns import HooksLeftOut, on_copies, outputs_of, random_states, replace_samples, without_samples

__all__ = ["Problem", "check_forward", "check_inputs", "check_modules", "find_mixing_module", "problem_of"]

# Relative to the size of a sample's output: above the rounding of float32 kernels, far below the effect of a batch statistic.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Problem:
    """Why a module cannot be trained privately. All three are parts of one sentence."""

    expected: str
    received: str
    """What follows the module's name, beginning with its own space or punctuation."""
    instead: str


def problem_of(module: nn.Module) -> Problem | None:
    """What is known to be wrong with this module alone, its children apart: None for most.

    Batch normalisation in training mode, instance normalisation with running statistics, an embedding with ``max_norm`` or
    ``scale_grad_by_freq``.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
        return Problem(
            "a model whose samples are independent",
            ": batch normalisation mixes the samples of a batch",
            "Replace it by torch.nn.GroupNorm",
        )
    if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
        return Problem(
            "no statistics of the data in the model",
            " with track_running_stats=True: they would be kept without noise",
            "Build it with track_running_stats=False",
        )
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
        return Problem(
            "max_norm=None",
            f" with max_norm={module.max_norm}: the forward pass would rewrite the rows that occur in the batch, without noise",
            "Build it without max_norm",
        )
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.scale_grad_by_freq:
        return Problem("scale_grad_by_freq=False", " with scale_grad_by_freq=True: it counts over the whole batch", "Build it without")
    return None


def check_modules(module: nn.Module) -> None:
    """Refuses by name the modules that are known to mix samples or to write data into the model without noise.

    Raises:
        Unsupported: as ``problem_of`` says.
    """
    for name, child in module.named_modules():
        if (problem := problem_of(child)) is not None:
            raise Unsupported(
                f"[make_private] Expected {problem.expected}, received '{name}' ({type(child).__name__}){problem.received}. {problem.instead}."
            )


def check_inputs(args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int) -> None:
    """Refuses a forward pass on anything but one row a sample, where it is unknown which row is whose.

    Raises:
        Unsupported: no input tensor has the batch as its batch dimension.
    """
    for tensor in tensors_in((args, kwargs)):
        if tensor.dim() > 0 and tensor.size(batch_dim if tensor.dim() > batch_dim else 0) == batch:
            return
    raise Unsupported(
        "[model] Expected an input tensor with one row for each sample of the loader's batch, received none. Call the model once on the whole "
        "batch, not on a part of it or on several views joined; views of a sample go into a dimension of their own, or into calls of their own."
    )


def check_forward(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    batch: int,
    batch_dim: int,
    check_derivatives: Callable[[list[torch.Tensor], bool], None] | None = None,
) -> None:
    """Runs the module 9 + 2*ceil(log2 batch) times without gradients and compares.

    For every bit of the sample's number the samples that have it, and then those that have not, get a neighbour's input;
    any two samples are so told apart in both directions. Then six samples stand alone among copies of themselves, so that
    the largest or the longest sample of the batch is gone, and half of the samples are left out. Random state, attributes and buffers
    are put back after every run. Where the core has taken something for a function of parameters alone, it sees the outputs of nine
    runs with gradients: two, between which every sample was replaced, those of samples alone, and one of half of them. Where the user's
    code computes gradients (hooks, autograd functions), gradients of parts of the batch have to add up.

    Raises:
        Unsupported: an output of a sample moved when another sample's input changed or was left out, a buffer took up data, or
            gradients do not add up.
    """
    if batch < 2:
        return
    if check_derivatives is not None:
        _check_derivatives(module, args, kwargs, batch, batch_dim, check_derivatives)
    with torch.no_grad(), on_copies(module) as restart, HooksLeftOut() as hooks:
        restart()
        reference = [t.detach().clone() for t in outputs_of(module(*args, **kwargs))]
        buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
        for replaced, donors in _replacements(batch):
            restart()
            changed_args, changed_kwargs = replace_samples((args, kwargs), replaced, batch, batch_dim, donors)
            outputs = outputs_of(module(*changed_args, **changed_kwargs))
            _compare(reference, outputs, ~replaced, batch, batch_dim)
            for name, buffer in module.named_buffers():
                if not torch.equal(buffer.nan_to_num(), buffers[name].nan_to_num()):
                    raise Unsupported(
                        f"[model] Expected buffers that do not depend on the data, received '{name}', which changes with the "
                        "batch: it would be kept without noise. Stop updating it in training (track_running_stats=False)."
                    )
        check_without_others(module, args, kwargs, batch, batch_dim, restart)
    check_backward(module, args, kwargs, batch, batch_dim, hooks_seen=hooks.seen)


def _check_derivatives(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int, check: Callable[[list[torch.Tensor], bool], None]
) -> None:
    def outputs(changed: tuple[tuple[Any, ...], dict[str, Any]]) -> list[torch.Tensor]:
        restart()
        return [t for t in tensors_in(module(*changed[0], **changed[1])) if t.requires_grad]

    with torch.enable_grad(), on_copies(module) as restart:
        for replaced, donors in _derivative_batches(batch):
            check(outputs(replace_samples((args, kwargs), replaced, batch, batch_dim, donors)), False)
        drawn = random_states()
        restart()
        if random_states() != drawn:
            return  # fewer samples would get other random numbers
        try:
            part = outputs(without_samples((args, kwargs), some_of(batch), batch, batch_dim))
        except Exception:  # a part of its inputs is none that this module takes, whatever it says to that
            return
        check(part, True)


def find_mixing_module(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int
) -> str:
    """The innermost module whose output for a sample moves with another sample's input while its own inputs do not.

    "" where it is the model itself, or where no module that is called shows it.
    """
    with torch.no_grad(), on_copies(module) as restart, HooksLeftOut():
        restart()
        before = _trace(module, args, kwargs)
        for replaced in _subsets(batch):
            restart()
            after = _trace(module, *replace_samples((args, kwargs), replaced, batch, batch_dim))
            for (name, inputs, outputs), (_, new_inputs, new_outputs) in zip(before, after):
                kept = (~replaced, batch, batch_dim)
                if not _moved(inputs, new_inputs, *kept, shared=True) and _moved(outputs, new_outputs, *kept, shared=False):
                    return name
    return ""


_Call = tuple[str, list[torch.Tensor], list[torch.Tensor]]


def _trace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[_Call]:
    """Every call of a submodule with copies of its tensors, inner calls before outer ones."""
    calls: list[_Call] = []
    hooks = []
    for name, child in module.named_modules():

        def record(_: nn.Module, given: Any, named: Any, returned: Any, name: str = name) -> None:
            calls.append((name, [t.clone() for t in tensors_in((given, named))], [t.clone() for t in outputs_of(returned)]))

        hooks.append(child.register_forward_hook(record, with_kwargs=True))
    try:
        module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _moved(
    before: list[torch.Tensor], after: list[torch.Tensor], kept: torch.Tensor, batch: int, batch_dim: int, *, shared: bool
) -> bool:
    """Whether rows of kept samples differ; with ``shared`` also whether a tensor without such rows does."""
    try:
        _compare(before, after, kept, batch, batch_dim)
    except Unsupported:
        return True
    without_rows = (
        (x, y) for x, y in zip(before, after) if x.dim() == 0 or (x.size(0) % batch != 0 and x.size(min(batch_dim, x.dim() - 1)) != batch)
    )
    return shared and any(x.shape != y.shape or not torch.equal(x, y) for x, y in without_rows)


def _subsets(batch: int) -> Iterator[torch.Tensor]:
    numbers = torch.arange(batch)
    for bit in range((batch - 1).bit_length()):
        has = (numbers >> bit) & 1 == 1
        yield has
        yield ~has


def _replacements(batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(which samples are replaced, by which each)."""
    yield from _by_neighbours(batch)
    yield from _each_alone(batch)


def _by_neighbours(batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for replaced in _subsets(batch):
        yield replaced, torch.arange(batch).roll(1)


def _each_alone(batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    numbers = torch.arange(batch)
    for alone in sorted({i * (batch - 1) // 5 for i in range(6)}):
        yield numbers != alone, torch.full_like(numbers, alone)


def _derivative_batches(batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    # Neighbours change few counts (how many samples look up a row, are above a threshold), often none; of one sample alone all do.
    yield from islice(_by_neighbours(batch), 2)
    yield from _each_alone(batch)


def _compare(
    reference: list[torch.Tensor], outputs: list[torch.Tensor], kept: torch.Tensor, batch: int, batch_dim: int
) -> None:
    for before, after in zip(reference, outputs):
        dim = batch_dim if before.dim() > batch_dim and before.size(batch_dim) == batch else 0
        if before.is_complex():
            before, after = torch.view_as_real(before), torch.view_as_real(after)
        if before.size(dim) % batch != 0 and before.dim() > 1 and before.size(1) == batch:
            dim = 1  # states of recurrent layers
        before, after = _common(before, after, dim)
        if before.shape != after.shape or before.size(dim) % batch != 0 or not before.is_floating_point() or before.numel() == 0:
            continue
        rows = before.size(dim) // batch
        mask = kept.repeat_interleave(rows) if dim == 0 else kept
        index = mask.nonzero().squeeze(1).to(before.device)
        x, y = (_rows(t.index_select(dim, index), dim) for t in (before, after))
        finite = torch.isfinite(x)
        moved = (x - y).abs().where(finite, 0.0).amax(1)
        # Of a sample's own size, or of a typical one's: one huge sample must not hide what moves in the others.
        size = x.abs().where(finite, 0.0).amax(1)
        if not torch.equal(finite, torch.isfinite(y)) or bool((moved > _TOLERANCE * torch.maximum(size, size.median())).any()):
            raise Unsupported(
                "[model] Expected each sample's output to depend on that sample only, received a model whose output for one sample "
                "changes when another sample of the batch does. Remove statistics over the batch (centring, batch normalisation, sorting "
                "or rolling over the batch, attention between samples)."
            )


def _common(before: torch.Tensor, after: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What both hold where only other dimensions than the batch's differ: outputs as long as the batch's longest sample."""
    if before.shape == after.shape or before.dim() != after.dim() or before.size(dim) != after.size(dim):
        return before, after
    for axis, (x, y) in enumerate(zip(before.shape, after.shape)):
        before, after = before.narrow(axis, 0, min(x, y)), after.narrow(axis, 0, min(x, y))
    return before, after


def _rows(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.movedim(dim, 0).reshape(t.size(dim), -1).double()
