"""Compiled modules, and what private training makes of them.

``torch.compile`` fuses forward and backward passes into one node each, which runs once for the whole batch and tells nothing of
single samples. A compiled module is therefore run as it was written while it trains privately, and compiled everywhere else.
Parts without private parameters stay compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

__all__ = ["run_as_written"]

def run_as_written(module: nn.Module, private: Collection[int]) -> None:
    """Makes compiled modules that hold private parameters (given by id) run uncompiled wherever they build a graph.

    Evaluation and ``torch.no_grad()`` stay compiled. Says so once, by name.
    """
    names = []
    for name, child in module.named_modules():
        compiled = _compiled_call(child)
        if compiled is None or not any(id(p) in private for p in child.parameters()):
            continue
        names.append(f"'{name}'" if name else "the model")
        _dispatch(child, *compiled)
    if names:
        warnings.warn(
            f"[make_private] {', '.join(names)} came from torch.compile, which hides single samples: while it trains privately it runs as it was "
            "written, and compiled under eval() or torch.no_grad(). Compile parts without trainable parameters to keep them compiled in training.",
            stacklevel=4,
        )


_Call = Callable[..., Any]


def _compiled_call(child: nn.Module) -> tuple[str, _Call, _Call] | None:
    """(attribute, compiled, as written), or None for a module that is not compiled."""
    original = child.__dict__.get("_modules", {}).get("_orig_mod")
    if type(child).__name__ == "OptimizedModule" and original is not None:
        return "forward", child.forward, original.__call__
    if child.__dict__.get("_compiled_call_impl") is not None:
        return "_compiled_call_impl", child.__dict__["_compiled_call_impl"], child._call_impl
    return None


def _dispatch(child: nn.Module, attribute: str, compiled: _Call, written: _Call) -> None:
    if hasattr(compiled, "_hushgrad_written"):
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        return (written if torch.is_grad_enabled() and child.training else compiled)(*args, **kwargs)

    call._hushgrad_written = written  # type: ignore[attr-defined]
    child.__dict__[attribute] = call
