"""The clipping arguments of ``make_private``, and what they are for a training plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hushgrad import _torch
from hushgrad.errors import InvalidArgument

__all__ = ["Clipping"]


@dataclass(frozen=True)
class Clipping:
    """The clipping arguments of ``make_private``."""

    clipping: str
    max_grad_norm: float | Sequence[float]
    target_unclipped_quantile: float
    clipbound_learning_rate: float
    min_clipbound: float | None
    max_clipbound: float | None
    unclipped_num_std: float | None

    def plan(self, names: list[str], noise_multiplier: float, batch_size: float) -> dict[str, Any]:
        """The fields of a TrainingPlan. names: of the private parameters, in order."""
        norms, groups = self._layers(names) if self.clipping == "per_layer" else ([], [])
        bound = math.hypot(*norms) if norms else self._bound()
        return {
            "clipping": self.clipping,
            "max_grad_norm": bound,
            "layer_norms": norms,
            "layer_of": groups,
            "adaptive": self._adaptive(bound, noise_multiplier, batch_size) if self.clipping == "adaptive" else None,
        }

    def _bound(self) -> float:
        if isinstance(self.max_grad_norm, (str, bytes, bool)) or not isinstance(self.max_grad_norm, (int, float)):
            raise InvalidArgument(
                f"[make_private] Expected max_grad_norm to be a number, received {type(self.max_grad_norm).__name__}. A sequence of bounds "
                'is for clipping="per_layer".'
            )
        return float(self.max_grad_norm)

    def _layers(self, names: list[str]) -> tuple[list[float], list[int]]:
        if isinstance(self.max_grad_norm, Sequence):
            if len(self.max_grad_norm) != len(names):
                raise InvalidArgument(
                    f"[make_private] Expected a max_grad_norm for each of {len(names)} trainable parameters of the optimizer, received "
                    f"{len(self.max_grad_norm)}."
                )
            return [float(norm) for norm in self.max_grad_norm], list(range(len(names)))
        owners = [name.rpartition(".")[0] for name in names]
        layers = list(dict.fromkeys(owners))
        return [self._bound() / math.sqrt(len(layers))] * len(layers), [layers.index(owner) for owner in owners]

    def _adaptive(self, bound: float, noise_multiplier: float, batch_size: float) -> _torch.AdaptiveClippingOptions:
        std = self.unclipped_num_std
        return _torch.AdaptiveClippingOptions(
            target_unclipped_quantile=self.target_unclipped_quantile,
            clipbound_learning_rate=self.clipbound_learning_rate,
            min_clipbound=1e-4 * bound if self.min_clipbound is None else self.min_clipbound,
            max_clipbound=1e4 * bound if self.max_clipbound is None else self.max_clipbound,
            unclipped_num_std=max(batch_size / 20, noise_multiplier) if std is None else std,
        )
