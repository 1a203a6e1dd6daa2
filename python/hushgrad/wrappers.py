"""Compiled modules, and what private training makes of them.

``torch.compile`` fuses forward and backward passes into one node each, which runs once for the whole batch and tells nothing of
single samples. While it trains privately, a compiled module therefore runs as it was written wherever it touches parameters; what
lies between is compiled (``compiled_parts``). Parts without private parameters stay compiled, and everything does elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch._functorch.config
from torch import nn

from hushgrad.compiled_parts import between_parameters

__all__ = ["run_as_written"]

def run_as_written(module: nn.Module, private: Collection[int]) -> None:
    """Makes compiled modules that hold private parameters (given by id) run uncompiled at these wherever they build a graph.

    Evaluation and ``torch.no_grad()`` stay compiled. Says so once, by name.
    """
    # The probes go through one graph several times; buffers that a compiled backward pass reuses would be gone.
    torch._functorch.config.donated_buffer = False
    names = []
    for name, child in module.named_modules():
        compiled = _compiled_call(child)
        if compiled is None or not any(id(p) in private for p in child.parameters()):
            continue
        names.append(f"'{name}'" if name else "the model")
        _dispatch(child, *compiled)
    if names:
        warnings.warn(
            f"[make_private] {', '.join(names)} came from torch.compile, which hides single samples: while it trains privately, what uses parameters runs as it "
            "was written, and only what lies between is compiled. Under eval() or torch.no_grad() all of it is.",
            stacklevel=4,
        )


_Call = Callable[..., Any]


def _compiled_call(child: nn.Module) -> tuple[str, _Call, _Call] | None:
    """(attribute, compiled, what runs in training), or None for a module that is not compiled."""
    original = child.__dict__.get("_modules", {}).get("_orig_mod")
    if type(child).__name__ == "OptimizedModule" and original is not None:
        context: Any = child.dynamo_ctx
        backend = between_parameters(torch._dynamo.eval_frame.innermost_backend(context.callback))
        return "forward", child.forward, torch.compile(original, backend=backend)
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
