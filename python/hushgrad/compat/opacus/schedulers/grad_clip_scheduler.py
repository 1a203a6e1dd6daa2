"""Schedules of the clipping bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hushgrad.compat.opacus.schedulers._scheduler import AttributeScheduler

__all__ = ["ExponentialGradClip", "LambdaGradClip", "StepGradClip", "_GradClipScheduler"]


class _GradClipScheduler(AttributeScheduler):
    """Base: derive and give ``get_max_grad_norm()``."""

    _attribute = "max_grad_norm"

    def get_max_grad_norm(self) -> float:
        """The value from this epoch on; ``last_epoch`` counts from 0."""
        raise NotImplementedError

    def _next(self) -> float:
        return self.get_max_grad_norm()


class ExponentialGradClip(_GradClipScheduler):
    """Times ``gamma`` every epoch."""

    def __init__(self, optimizer: Any, *, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_max_grad_norm(self) -> float:
        return float(self._current if self.last_epoch == 0 else self._current * self.gamma)


class LambdaGradClip(_GradClipScheduler):
    """The first value times ``scheduler_function(epoch)``; factors do not add up."""

    def __init__(self, optimizer: Any, *, scheduler_function: Callable[[int], float], last_epoch: int = -1) -> None:
        self.scheduler_function = scheduler_function
        self.base_max_grad_norm = optimizer.max_grad_norm
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_max_grad_norm(self) -> float:
        return float(self.base_max_grad_norm * self.scheduler_function(self.last_epoch))


class StepGradClip(_GradClipScheduler):
    """Times ``gamma`` every ``step_size`` epochs."""

    def __init__(self, optimizer: Any, *, step_size: int, gamma: float, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_max_grad_norm(self) -> float:
        return float(self._current * self.gamma if self._is_due(self.step_size) else self._current)
