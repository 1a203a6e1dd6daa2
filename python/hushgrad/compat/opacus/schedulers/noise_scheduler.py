"""Schedules of the noise multiplier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hushgrad.compat.opacus.schedulers._scheduler import AttributeScheduler

__all__ = ["ExponentialNoise", "LambdaNoise", "StepNoise", "_NoiseScheduler"]


class _NoiseScheduler(AttributeScheduler):
    """Base: derive and give ``get_noise_multiplier()``."""

    _attribute = "noise_multiplier"

    def get_noise_multiplier(self) -> float:
        """The value from this epoch on; ``last_epoch`` counts from 0."""
        raise NotImplementedError

    def _next(self) -> float:
        return self.get_noise_multiplier()


class ExponentialNoise(_NoiseScheduler):
    """Times ``gamma`` every epoch."""

    def __init__(self, optimizer: Any, *, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_noise_multiplier(self) -> float:
        return float(self._current if self.last_epoch == 0 else self._current * self.gamma)


class LambdaNoise(_NoiseScheduler):
    """The first value times ``noise_lambda(epoch)``; factors do not add up."""

    def __init__(self, optimizer: Any, *, noise_lambda: Callable[[int], float], last_epoch: int = -1) -> None:
        self.noise_lambda = noise_lambda
        self.base_noise_multiplier = optimizer.noise_multiplier
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_noise_multiplier(self) -> float:
        return float(self.base_noise_multiplier * self.noise_lambda(self.last_epoch))


class StepNoise(_NoiseScheduler):
    """Times ``gamma`` every ``step_size`` epochs."""

    def __init__(self, optimizer: Any, *, step_size: int, gamma: float, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch=last_epoch)

    def get_noise_multiplier(self) -> float:
        return float(self._current * self.gamma if self._is_due(self.step_size) else self._current)
