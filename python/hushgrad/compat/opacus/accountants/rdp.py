"""Renyi differential privacy: looser, and good company for numbers that were published with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hushgrad.compat.opacus.accountants.accountant import EventAccountant

__all__ = ["RDPAccountant"]


class RDPAccountant(EventAccountant):
    """The best of hushgrad's own orders, 1.001 to 1024."""

    DEFAULT_ALPHAS = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))

    def get_privacy_spent(self, *, delta: float, alphas: Sequence[float] | None = None) -> tuple[float, float]:
        """``(epsilon, order)``. The order is nan: which one was best is not reported. ``alphas`` are accepted and not needed."""
        return self._upper(delta, "rdp"), math.nan

    def get_epsilon(self, delta: float, alphas: Sequence[float] | None = None, **kwargs: Any) -> float:
        """Upper bound of epsilon at ``delta``."""
        return self.get_privacy_spent(delta=delta, alphas=alphas)[0]

    @classmethod
    def mechanism(cls) -> str:
        """ "rdp"."""
        return "rdp"
