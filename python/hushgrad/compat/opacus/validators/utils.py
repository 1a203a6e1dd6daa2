"""Own validators and fixers, by decorator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hushgrad.compat.opacus.validators.module_validator import ModuleValidator

__all__ = ["register_module_fixer", "register_module_validator"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_module_validator(
    target_class_or_classes: type | Sequence[type], validator_class: Any = ModuleValidator
) -> Callable[[_Function], _Function]:
    """Registers ``function(module) -> list of errors`` for classes and their subclasses. It adds to hushgrad's own checks."""
    return _register(validator_class.VALIDATORS, target_class_or_classes)


def register_module_fixer(
    target_class_or_classes: type | Sequence[type], validator_class: Any = ModuleValidator
) -> Callable[[_Function], _Function]:
    """Registers ``function(module, **kwargs) -> replacement`` for classes and their subclasses. It comes before hushgrad's own."""
    return _register(validator_class.FIXERS, target_class_or_classes)


def _register(table: dict[type, Any], classes: type | Sequence[type]) -> Callable[[_Function], _Function]:
    def keep(function: _Function) -> _Function:
        for target in classes if isinstance(classes, Sequence) else [classes]:
            table[target] = function
        return function

    return keep
