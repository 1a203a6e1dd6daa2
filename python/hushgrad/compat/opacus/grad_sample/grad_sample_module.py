"""``GradSampleModule`` as a name: for ``isinstance``, and for what scripts call on the module they got back."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from hushgrad.errors import Unsupported

__all__ = [
    "AbstractGradSampleModule",
    "GradSampleHooks",
    "GradSampleModule",
    "GradSampleModuleFastGradientClipping",
    "adopt_module",
]

_Module = TypeVar("_Module", bound=nn.Module)


class AbstractGradSampleModule(nn.Module, metaclass=abc.ABCMeta):
    """Every module that went through ``make_private`` is an instance, and stays one of its own class.

    Cannot be made by hand: without an engine nothing would be clipped or charged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise Unsupported(
            f"[{type(self).__name__}] Expected a module made private by PrivacyEngine.make_private, received a call of the constructor: "
            "without an engine nothing is noised or charged. Call make_private; it needs no wrapper."
        )


class GradSampleModule(AbstractGradSampleModule):
    """The name that scripts test with ``isinstance``."""


class GradSampleModuleFastGradientClipping(GradSampleModule):
    """The same in the mode "ghost"."""


class GradSampleHooks:
    """What ``make_private(wrap_model=False)`` returns in the module's place; go on using the module itself."""

    def __init__(self, module: nn.Module, close: Callable[[], None]) -> None:
        self._module = module
        self._close = close

    def cleanup(self) -> None:
        """Ends private training; the module is an ordinary one from then on."""
        self._close()

    remove_hooks = cleanup

    def forbid_grad_accumulation(self) -> None:
        """Nothing to do: what was not clipped never reaches a step."""

    allow_grad_accumulation = forbid_grad_accumulation


def adopt_module(module: _Module, close: Callable[[], None]) -> _Module:
    """Gives ``module`` the names that scripts use on Opacus' wrapper, where it has none of its own by that name.

    It stays the same object with the same state_dict; its class becomes a subclass of its own.
    """
    base = type(module)
    if issubclass(base, AbstractGradSampleModule):
        module.__class__ = base = base.__mro__[1]

    def end(self: nn.Module) -> None:
        close()
        if type(self) is adopted:
            self.__class__ = base

    def nothing(self: nn.Module) -> None:
        return

    def itself(self: nn.Module) -> nn.Module:
        return self

    names: dict[str, Any] = {
        "_module": property(itself),
        "to_standard_module": itself,
        "remove_hooks": end,
        "cleanup": end,
        "forbid_grad_accumulation": nothing,
        "allow_grad_accumulation": nothing,
    }
    own = {name: value for name, value in names.items() if not hasattr(module, name)}
    adopted = type(base.__name__, (base,), {**own, "__module__": base.__module__, "__qualname__": base.__qualname__})
    GradSampleModuleFastGradientClipping.register(adopted)
    module.__class__ = adopted
    return module
