"""Sees a loss before its backward pass runs.

What mixes samples after the model's outputs shows in the loss only, and PyTorch has no hook there. Every way to start a
backward pass that fills gradients leads through ``torch.autograd.backward``; it is wrapped, once, when a first optimizer is
made private, and passes on unchanged what does not concern a private model.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import torch

__all__ = ["watch_losses"]


class _Watcher(Protocol):
    def before_backward(self, losses: list[torch.Tensor], gradients: list[torch.Tensor]) -> None: ...


_watchers: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_losses(watcher: _Watcher) -> None:
    """Calls ``watcher.before_backward(losses, gradients)`` before each backward pass, for as long as the watcher lives."""
    _watchers.add(watcher)
    if not hasattr(torch.autograd.backward, "_hushgrad_original"):
        torch.autograd.backward = _wrapped(torch.autograd.backward)


def _wrapped(original: Any) -> Any:
    @functools.wraps(original)
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        # `inputs` names the tensors that are to get gradients: nothing private is asked for.
        inputs = kwargs.get("inputs", args[3] if len(args) > 3 else None)
        if inputs is None and len(_watchers) > 0:
            losses, gradients = _seeded(tensors, grad_tensors)
            for watcher in list(_watchers):
                watcher.before_backward(losses, gradients)
        original(tensors, grad_tensors, *args, **kwargs)

    backward._hushgrad_original = original  # type: ignore[attr-defined]
    return backward


def _seeded(tensors: Any, grad_tensors: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Losses with the gradients that their backward pass starts from; what backward() will refuse itself is left out."""
    losses = _sequence(tensors)
    given = _sequence(grad_tensors) if grad_tensors is not None else [None] * len(losses)
    pairs = []
    for loss, gradient in zip(losses, given):
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad or (gradient is None and loss.numel() != 1):
            continue
        pairs.append((loss, torch.ones_like(loss, requires_grad=False) if gradient is None else gradient.detach()))
    return [loss for loss, _ in pairs], [gradient for _, gradient in pairs]


def _sequence(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return [value]
    return list(value) if isinstance(value, Sequence) else []
