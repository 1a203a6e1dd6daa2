"""``ModuleValidator``: what ``hushgrad.doctor`` knows of a model, in Opacus' words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from hushgrad.compat.opacus.validators.errors import (
    IllegalModuleConfigurationError,
    ShouldReplaceModuleError,
    UnsupportableModuleError,
    UnsupportedModuleError,
)
from hushgrad.doctor import batch_norm_to_group_norm, replacement_for
from hushgrad.errors import InvalidArgument
from hushgrad.independence import problem_of

__all__ = ["ModuleValidator"]

_INSTANCE_NORMS: tuple[tuple[type, type], ...] = (
    (nn.BatchNorm1d, nn.InstanceNorm1d),
    (nn.BatchNorm2d, nn.InstanceNorm2d),
    (nn.BatchNorm3d, nn.InstanceNorm3d),
)


class ModuleValidator:
    """Opacus' checks and repairs. LSTM, GRU, attention and every other module of torch.nn but batch normalisation need none."""

    #: Own functions by class, see ``register_module_validator`` and ``register_module_fixer``.
    VALIDATORS: dict[type, Callable[..., list[UnsupportedModuleError]]] = {}
    FIXERS: dict[type, Callable[..., nn.Module]] = {}

    @classmethod
    def validate(cls, module: nn.Module, *, strict: bool = False) -> list[UnsupportedModuleError]:
        """All errors, [] for none; with ``strict`` raises UnsupportedModuleError that holds them."""
        errors: list[UnsupportedModuleError] = []
        if not module.training:
            errors.append(
                IllegalModuleConfigurationError(
                    "[ModuleValidator] Expected a model in training mode, received one in evaluation mode. Call model.train()."
                )
            )
        for name, child in module.named_modules():
            errors.extend(_known_error(name, child))
            if (own := _registered(cls.VALIDATORS, child)) is not None:
                errors.extend(own(child))
        if strict and errors:
            raise UnsupportedModuleError(errors)
        return errors

    @classmethod
    def is_valid(cls, module: nn.Module) -> bool:
        """Whether ``validate`` finds nothing."""
        return not cls.validate(module, strict=False)

    @classmethod
    def fix(
        cls, module: nn.Module, *, replace_bn_with_in: bool = False, num_groups: int | None = None, **kwargs: Any
    ) -> nn.Module:
        """A deep copy with BatchNorm replaced by GroupNorm, and settings put right.

        Build the optimizer from the copy's parameters. Further arguments go to registered fixers.

        Args:
            replace_bn_with_in: InstanceNorm instead of GroupNorm.
            num_groups: of GroupNorm; default gcd(32, channels).
        """
        if replace_bn_with_in and num_groups is not None:
            raise InvalidArgument(
                "[ModuleValidator] Expected replace_bn_with_in or num_groups, received both. InstanceNorm has no groups: drop one."
            )
        fixed = copy.deepcopy(module)
        options = {"replace_bn_with_in": replace_bn_with_in, "num_groups": num_groups, **kwargs}
        for name, child in list(fixed.named_modules(remove_duplicate=False)):
            replacement = _replacement(cls.FIXERS, child, options)
            if replacement is None or replacement is child:
                continue
            if name == "":
                return replacement
            parent, _, attribute = name.rpartition(".")
            setattr(fixed.get_submodule(parent), attribute, replacement)
        return fixed

    @classmethod
    def fix_and_validate(cls, module: nn.Module, **kwargs: Any) -> nn.Module:
        """``fix``, then ``validate`` with ``strict``."""
        fixed = cls.fix(module, **kwargs)
        cls.validate(fixed, strict=True)
        return fixed


def _known_error(name: str, module: nn.Module) -> list[UnsupportedModuleError]:
    problem = problem_of(module)
    if problem is None:
        return []
    is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    kind = ShouldReplaceModuleError if is_batch_norm else IllegalModuleConfigurationError
    return [
        kind(
            f"[ModuleValidator] Expected {problem.expected}, received '{name}' ({type(module).__name__}){problem.received}. "
            f"{problem.instead}, or call ModuleValidator.fix(model)."
        )
    ]


def _registered(table: dict[type, Any], module: nn.Module) -> Any:
    return next((table[kind] for kind in type(module).__mro__ if kind in table), None)


def _replacement(fixers: dict[type, Any], module: nn.Module, options: dict[str, Any]) -> nn.Module | None:
    if (own := _registered(fixers, module)) is not None:
        replaced: nn.Module = own(module, **options)
        return replaced
    if problem_of(module) is None or not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return replacement_for(module)
    if not options["replace_bn_with_in"]:
        return batch_norm_to_group_norm(module, options["num_groups"])
    for batch_norm, instance_norm in _INSTANCE_NORMS:
        if isinstance(module, batch_norm):
            norm: nn.Module = instance_norm(module.num_features)
            return norm.train(module.training)
    raise UnsupportableModuleError(
        f"[ModuleValidator] Expected BatchNorm1d, 2d or 3d for replace_bn_with_in=True, received {type(module).__name__}. Leave it out: "
        "GroupNorm fits every one."
    )
