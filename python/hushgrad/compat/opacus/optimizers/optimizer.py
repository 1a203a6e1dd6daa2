"""``DPOptimizer`` as a name, and the attributes that scripts read and write on the optimizer they got back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from hushgrad.session import PrivateSession, session_of
from hushgrad.errors import InvalidArgument, Unsupported

__all__ = ["DPOptimizer", "StepCounter", "adopt_optimizer"]

_Optimizer = TypeVar("_Optimizer", bound=Optimizer)


@dataclass
class _State:
    """What the session does not know."""

    expected_batch_size: float
    loss_reduction: str
    bounds: list[float] | None
    hooks: list[Callable[[Any], None]] = field(default_factory=list)


_states: weakref.WeakKeyDictionary[Optimizer, _State] = weakref.WeakKeyDictionary()


class DPOptimizer(Optimizer):
    """Every optimizer that went through ``make_private`` is an instance, and stays one of its own class.

    Cannot be made by hand: without an engine its noise would be charged nowhere.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise Unsupported(
            f"[{type(self).__name__}] Expected an optimizer made private by PrivacyEngine.make_private, received a call of the constructor: "
            "without an engine its noise would be charged nowhere. Call make_private."
        )

    @property
    def noise_multiplier(self) -> float:
        """Of the next step. A schedule may write it; what a step costs follows."""
        return session_of(self).training.noise_multiplier

    @noise_multiplier.setter
    def noise_multiplier(self, value: float) -> None:
        session_of(self).training.set_noise_multiplier(float(value))

    @property
    def max_grad_norm(self) -> float | list[float]:
        """Of the next step; one a parameter under per-layer clipping. A schedule may write it."""
        bounds = _states[self].bounds
        return session_of(self).training.max_grad_norm if bounds is None else list(bounds)

    @max_grad_norm.setter
    def max_grad_norm(self, value: float) -> None:
        session_of(self).training.set_max_grad_norm(float(value))

    @property
    def expected_batch_size(self) -> float:
        """What the noisy sum is divided by. Fixed with the sampling rate, so not to be written."""
        return _states[self].expected_batch_size

    @property
    def loss_reduction(self) -> str:
        """ "mean" or "sum"."""
        return _states[self].loss_reduction

    @property
    def original_optimizer(self) -> Optimizer:
        """The optimizer itself: there is no wrapper around it."""
        return self

    @property
    def params(self) -> list[nn.Parameter]:
        """Its trainable parameters."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    @property
    def accumulated_iterations(self) -> int:
        """1: a step is one logical batch."""
        return 1

    @property
    def grad_samples(self) -> list[Any]:
        """Raises Unsupported: there are none, and they would be private data."""
        raise Unsupported(
            "[optimizer] Expected no use of grad_samples, received one: per-sample gradients are never held, and they are private data. "
            'Leave it out; clipping="adaptive" follows their norms with privacy.'
        )

    def attach_step_hook(self, fn: Callable[[Any], None]) -> None:
        """Calls ``fn(optimizer)`` once a logical step, after the charge. Accounting needs none and cannot be replaced by one."""
        _states[self].hooks.append(fn)

    def signal_skip_step(self, do_skip: bool = True) -> None:
        """Raises Unsupported for True: several draws joined into one step cost more than one step."""
        if do_skip:
            raise Unsupported(
                "[optimizer] Expected BatchMemoryManager to split batches, received signal_skip_step: batches that were drawn one by one and "
                "joined to one step cost more than one step. Wrap the loader in BatchMemoryManager, or draw larger batches."
            )


class StepCounter:
    """Tells an engine's accountant, then the script's hooks, of every logical step that was charged."""

    def __init__(self, session: PrivateSession, on_step: Callable[[float], None]) -> None:
        self._session = weakref.ref(session)
        self._on_step = on_step
        self._seen = session.training.steps

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        session = self._session()
        if session is None or session.training.steps == self._seen:
            return
        self._seen = session.training.steps
        self._on_step(session.training.noise_multiplier)
        for hook in _states[optimizer].hooks:
            hook(optimizer)


def adopt_optimizer(
    optimizer: _Optimizer,
    *,
    expected_batch_size: float,
    loss_reduction: str,
    max_grad_norm: Any,
    on_step: Callable[[float], None],
) -> _Optimizer:
    """Gives a private optimizer Opacus' attributes. It stays the same object; its class becomes a subclass of its own.

    on_step: called with the noise multiplier of every logical step, once it is charged and before parameters change.
    """
    base: Any = type(optimizer)
    if not issubclass(base, DPOptimizer):
        taken = [name for name in vars(DPOptimizer) if not name.startswith("_") and hasattr(optimizer, name)]
        if taken:
            raise InvalidArgument(
                f"[make_private] Expected an optimizer without attributes of Opacus' names, received one with {taken}. Rename them."
            )
        optimizer.__class__ = type(
            base.__name__, (DPOptimizer, base), {"__module__": base.__module__, "__qualname__": base.__qualname__}
        )
    bounds = list(max_grad_norm) if isinstance(max_grad_norm, (list, tuple)) else None
    _states[optimizer] = _State(expected_batch_size, loss_reduction, bounds)
    session = session_of(optimizer)
    # Registered after the session's own hook, so that it runs when the step is charged and noised.
    session._hooks.append(optimizer.register_step_pre_hook(StepCounter(session, on_step)))
    return optimizer
