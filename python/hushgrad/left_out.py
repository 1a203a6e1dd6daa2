"""What a sample's output and gradient are when others of its batch are left out: the same, or the model is refused.

Replacing samples does not show what depends on how many there are (a division by the batch's size) or on a sample's place among
them; and where the user's own code computes gradients (hooks, ``torch.autograd.Function``), outputs do not show what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hushgrad.errors import Unsupported
from hushgrad.reruns import ConstantDraws, HooksLeftOut, on_copies, outputs_of, without_samples

__all__ = ["check_backward", "check_without_others", "some_of"]

# A batch of another size runs through other kernels: rounding is larger than between equal sizes, what is looked for far larger.
_TOLERANCES = {torch.float64: 1e-2, torch.float32: 1e-2}
_LOW_PRECISION = 0.1
_FEW = 4  # samples whose gradients are compared

_Run = Callable[[torch.Tensor], list[torch.Tensor]]


def some_of(batch: int) -> torch.Tensor:
    """About half of the numbers below ``batch``, at irregular places (Thue-Morse): 1, 2, 4, 7, 8, 11, ..."""
    return torch.tensor([i for i in range(batch) if i.bit_count() % 2 == 1])


def check_without_others(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int, restart: Callable[[], None]
) -> None:
    """Compares the outputs of half of the samples with those of a batch of these alone. To be called without gradients.

    A module that cannot run on a part of its inputs is left in peace.

    Raises:
        Unsupported: an output differs.
    """
    run = _runs(module, args, kwargs, batch, batch_dim, restart)
    kept = some_of(batch)
    try:
        with ConstantDraws():  # type: ignore[no-untyped-call]
            whole, part = [t.clone() for t in run(torch.arange(batch))], run(kept)
    except Exception:  # a part of its inputs is none that this module takes, whatever it says to that
        return
    for before, after in zip(whole, part):
        pair = _rows_of_both(before, after, kept, batch, batch_dim)
        if pair is not None and _differ(*pair):
            raise Unsupported(
                "[model] Expected each sample's output to depend on that sample only, received a model whose output for a sample changes when "
                "others are left out: it depends on how many samples there are (a division by x.size(0)), or on a sample's place among them. "
                "Drop what depends on either; a mean over the batch belongs into the loss."
            )


def check_backward(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int, *, hooks_seen: bool
) -> None:
    """Where user code computes gradients: those of parts of a batch add up to that of the whole, and are those of the parts alone.

    Runs twice, on a few samples, only if a run with gradients comes upon a hook or a ``torch.autograd.Function``.

    Raises:
        Unsupported: they do not.
    """
    few = torch.arange(min(batch, _FEW))
    odd, even = few[1::2], few[::2]
    module = module.module if isinstance(module, DistributedDataParallel) else module
    draws = ConstantDraws()  # type: ignore[no-untyped-call]
    with torch.enable_grad(), on_copies(module) as restart, draws, HooksLeftOut() as hooks:
        run = _runs(module, args, kwargs, batch, batch_dim, restart)
        try:
            whole = run(few)
            if not (hooks_seen or hooks.seen or any(map(_has_python, whole))):
                return
            part = run(odd)
        except Exception:  # as above
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        seeds = [_irregular(t) for t in whole]
        both = _gradient(whole, seeds, parameters)
        halves = [_gradient(whole, [_seed_at(s, some, len(few), batch_dim) for s in seeds], parameters) for some in (odd, even)]
        alike = _alike(both, [x + y for x, y in zip(*halves)])
        alike = alike and _alike(_gradient(whole, [2 * s for s in seeds], parameters), [2 * x for x in both])
        pairs = [_rows_of_both(s, t, odd, len(few), batch_dim) for s, t in zip(seeds, part)]
        if all(pairs) and len(part) == len(whole):
            alone = _gradient(part, [pair[0].view_as(t) for pair, t in zip(pairs, part) if pair], parameters)
            alike = alike and _alike(halves[0], alone)
    if alike:
        return
    raise Unsupported(
        "[model] Expected gradients that flow back sample by sample, received a backward pass in which those of a batch are not the sum of its "
        "samples': a hook or a torch.autograd.Function computes them from all samples together, from their number, or not in proportion "
        "(a norm, a maximum, a clamp). Let it scale gradients by constants only; per-sample clipping follows anyway."
    )


def _runs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int, restart: Callable[[], None]
) -> _Run:
    def run(kept: torch.Tensor) -> list[torch.Tensor]:
        restart()
        some_args, some_kwargs = without_samples((args, kwargs), kept, batch, batch_dim)
        return [torch.view_as_real(t) if t.is_complex() else t for t in outputs_of(module(*some_args, **some_kwargs))]

    return run


def _rows_of(t: torch.Tensor, kept: torch.Tensor, batch: int, batch_dim: int) -> tuple[int, torch.Tensor] | None:
    """(dimension, rows) of the kept samples; None for a tensor without rows of each sample."""
    dim = batch_dim if t.dim() > batch_dim and t.size(batch_dim) == batch else 0
    if t.size(dim) % batch != 0 and t.dim() > 1 and t.size(1) == batch:
        dim = 1  # states of recurrent layers
    if t.size(dim) % batch != 0 or t.numel() == 0:
        return None
    each = t.size(dim) // batch
    return dim, (kept[:, None] * each + torch.arange(each)).flatten().to(t.device)


def _rows_of_both(
    before: torch.Tensor, after: torch.Tensor, kept: torch.Tensor, batch: int, batch_dim: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rows of the kept samples in both, cut to what both hold (outputs may be as long as the batch's longest sample)."""
    found = _rows_of(before, kept, batch, batch_dim)
    if found is None or before.dim() != after.dim() or after.size(found[0]) != len(found[1]):
        return None
    before = before.index_select(*found)
    for axis, (x, y) in enumerate(zip(before.shape, after.shape)):
        before, after = before.narrow(axis, 0, min(x, y)), after.narrow(axis, 0, min(x, y))
    return _flat(before, found[0]), _flat(after, found[0])


def _flat(t: torch.Tensor, dim: int) -> torch.Tensor:
    return t.movedim(dim, 0).reshape(t.size(dim), -1)


def _differ(before: torch.Tensor, after: torch.Tensor) -> bool:
    if not before.is_floating_point():
        return not torch.equal(before, after)
    if before.numel() == 0:
        return False
    finite = torch.isfinite(before)
    moved = (before.double() - after.double()).abs().where(finite, 0.0).amax(1)
    size = before.double().abs().where(finite, 0.0).amax(1)
    tolerance = _TOLERANCES.get(before.dtype, _LOW_PRECISION)
    return bool((moved > tolerance * torch.maximum(size, size.median())).any())


def _has_python(output: torch.Tensor) -> bool:
    """Whether the graph above an output holds a node whose backward pass is written in Python."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        waiting.extend(child for child, _ in node.next_functions)
    return False


def _irregular(like: torch.Tensor) -> torch.Tensor:
    """Not random, which would be constant here: a normalisation lets nothing constant through."""
    return torch.arange(1, like.numel() + 1, dtype=torch.float64).square().mul(0.7).sin().view(like.shape).to(like.device, like.dtype)


def _seed_at(seed: torch.Tensor, kept: torch.Tensor, batch: int, batch_dim: int) -> torch.Tensor:
    found = _rows_of(seed, kept, batch, batch_dim)
    masked = torch.zeros_like(seed)
    return masked if found is None else masked.index_copy(*found, seed.index_select(*found))


def _gradient(outputs: list[torch.Tensor], seeds: list[torch.Tensor], parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    pairs = [(t, s) for t, s in zip(outputs, seeds) if t.requires_grad]
    if not pairs:
        return []
    found = torch.autograd.grad([t for t, _ in pairs], parameters, [s for _, s in pairs], retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g.to_dense() for g, p in zip(found, parameters)]


def _alike(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    norms = [float(x.double().norm()) for x in expected]
    total = sum(norm**2 for norm in norms) ** 0.5
    for x, y, norm in zip(found, expected, norms):
        error = float((x.double() - y.double()).norm())
        # A gradient that is zero but for rounding (a bias before a normalisation) proves nothing.
        if error > _TOLERANCES.get(x.dtype, _LOW_PRECISION) * max(norm, 1e-3 * total):
            return False
    return True
