"""Small questions about modules."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

__all__ = [
    "are_state_dict_equal",
    "clone_module",
    "get_submodule",
    "has_trainable_params",
    "parametrized_modules",
    "requires_grad",
    "trainable_modules",
    "trainable_parameters",
]


def has_trainable_params(module: nn.Module) -> bool:
    """Whether the module itself, without its children, owns a trainable parameter."""
    return any(p.requires_grad for p in module.parameters(recurse=False))


def parametrized_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules that own parameters."""
    return ((name, m) for name, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None)


def trainable_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules that own trainable parameters."""
    return ((name, m) for name, m in module.named_modules() if has_trainable_params(m))


def trainable_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that want a gradient."""
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def requires_grad(module: nn.Module, *, recurse: bool = False) -> bool:
    """Whether the module (with its children, if ``recurse``) has a trainable parameter."""
    return any(p.requires_grad for p in module.parameters(recurse))


def clone_module(module: nn.Module) -> nn.Module:
    """A deep copy on the same devices. Nothing is pickled."""
    return copy.deepcopy(module)


def get_submodule(module: nn.Module, target: str) -> nn.Module:
    """The submodule with a dotted name, "" for the module itself. Raises AttributeError if there is none."""
    return module.get_submodule(target)


def are_state_dict_equal(sd1: Mapping[str, torch.Tensor], sd2: Mapping[str, torch.Tensor]) -> bool:
    """Whether two state_dicts have the same keys and values that ``torch.allclose`` takes for equal."""
    return sd1.keys() == sd2.keys() and all(torch.allclose(sd1[key], sd2[key]) for key in sd1)
