"""Names of Opacus' module wrappers. There is no wrapper: the returned module is the caller's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hushgrad.compat.opacus._missing import GRADIENTS, refuse
from hushgrad.compat.opacus.grad_sample.grad_sample_module import (
    AbstractGradSampleModule,
    GradSampleHooks,
    GradSampleModule,
    GradSampleModuleFastGradientClipping,
)

__all__ = [
    "AbstractGradSampleModule",
    "GradSampleHooks",
    "GradSampleModule",
    "GradSampleModuleFastGradientClipping",
    "register_grad_sampler",
    "register_norm_sampler",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_grad_sampler(
    target_class_or_classes: type | Sequence[type], *args: Any, **kwargs: Any
) -> Callable[[_Function], _Function]:
    """Accepts Opacus' rule for a layer and never calls it: every operator is differentiated exactly without one."""

    def leave_alone(function: _Function) -> _Function:
        warnings.warn(
            f"The rule {function.__name__!r} is not needed and never called: the layer's operators are differentiated exactly. Drop it.",
            stacklevel=2,
        )
        return function

    return leave_alone


register_norm_sampler = register_grad_sampler

if not TYPE_CHECKING:
    _WRAPPER = "the module that make_private returns is the caller's own, without a wrapper. Use PrivacyEngine.make_private"
    __getattr__ = refuse(
        __name__,
        {
            **dict.fromkeys(
                (
                    "AbstractGradSampleHooks",
                    "GradSampleHooksFastGradientClipping",
                    "GradSampleHooksFastGradientClippingFSDP",
                    "GradSampleHooksFastGradientClippingTP",
                    "GradSampleHooksNoOp",
                    "GradSampleModuleExpandedWeights",
                    "GradSampleModuleFastGradientClippingFSDP",
                    "GradSampleModuleFastGradientClippingTP",
                    "GradSampleModuleNoOp",
                    "get_gsm_class",
                    "prepare_module",
                    "wrap_model",
                ),
                _WRAPPER,
            ),
            "create_or_accumulate_grad_sample": GRADIENTS,
        },
    )
