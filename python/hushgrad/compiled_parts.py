"""A backend of ``torch.compile`` for private training: what touches a parameter runs as it was written, what lies between is compiled.

A compiled region is one node of the autograd graph, which tells nothing of single samples. Where it uses no parameter, nothing has
to be told: gradients pass through it row by row, as the probes of the engine check.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.split_module import split_module

__all__ = ["between_parameters"]

_LAYOUT = frozenset(
    "getitem view reshape transpose permute chunk split contiguous unsqueeze squeeze expand flatten unflatten size shape getattr to float movedim".split()
)
_IN_PLACE = frozenset({operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem})
_WORTH_COMPILING = 2  # operators that compute, in one region

Backend = Callable[[fx.GraphModule, list[torch.Tensor]], Callable[..., Any]]


def between_parameters(backend: Any) -> Backend:
    """backend: a name or callable that ``torch.compile`` takes; it compiles the regions that touch no parameter."""

    def compile_between(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        if any(map(_spans_regions, graph.graph.nodes)):
            return graph.forward
        regions = _regions(graph, inputs)
        work: dict[int, int] = {}
        for node, (region, is_compiled) in regions.items():
            if is_compiled and _name_of(node) not in _LAYOUT:
                work[region] = work.get(region, 0) + 1
        chosen = {f"submod_{region}" for region, count in work.items() if count >= _WORTH_COMPILING}
        if not chosen:
            return graph.forward
        split = split_module(graph, None, lambda node: regions[node][0])  # type: ignore[arg-type]
        for name in chosen:
            part = split.get_submodule(name)
            delattr(split, name)
            setattr(split, name, torch.compile(part, backend=backend))
        return split

    return compile_between


def _regions(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> dict[fx.Node, tuple[int, bool]]:
    """(number, whether it may be compiled) of the region of every operator: runs of operators, in order, of one kind."""
    parameters: set[fx.Node] = set()  # and what is computed from them alone
    data: set[fx.Node] = set()
    for node, value in zip((n for n in graph.graph.nodes if n.op == "placeholder"), inputs):
        if isinstance(value, nn.Parameter) or (isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf):
            parameters.add(node)
        elif isinstance(value, torch.Tensor) and "buffers" not in node.name:
            data.add(node)
    regions: dict[fx.Node, tuple[int, bool]] = {}
    number, before = 0, None
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        touches = any(source in parameters for source in node.all_input_nodes)
        if any(source in data for source in node.all_input_nodes):
            data.add(node)
        elif touches or (node.op == "get_attr" and isinstance(_attribute(graph, str(node.target)), nn.Parameter)):
            parameters.add(node)
        is_compiled = not (touches or node in parameters or _writes(node) or node.op in ("get_attr", "call_module"))
        if is_compiled is not before:
            number, before = number + 1, is_compiled
        regions[node] = (number, is_compiled)
    return regions


def _attribute(graph: fx.GraphModule, target: str) -> object:
    value: object = graph
    for name in target.split("."):
        value = getattr(value, name)
    return value


def _name_of(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _writes(node: fx.Node) -> bool:
    name = _name_of(node)
    return node.target in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _spans_regions(node: fx.Node) -> bool:
    """Whether the node begins or ends what holds for those that follow (autocast, no_grad), or holds a graph itself."""
    return isinstance(node.target, torch._ops.HigherOrderOperator) or _name_of(node).startswith(("_enter_", "_exit_", "_set_grad", "_saved_tensors"))
