"""The default accountant."""

from __future__ import annotations

from typing import Any

from hushgrad.compat.opacus.accountants.accountant import EventAccountant

__all__ = ["PRVAccountant"]


class PRVAccountant(EventAccountant):
    """Privacy loss distributions, rounded against us: the tightest upper bound."""

    def get_epsilon(
        self, delta: float, *, eps_error: float = 0.01, delta_error: float | None = None, **kwargs: Any
    ) -> float:
        """Upper end of epsilon at ``delta``. The errors are accepted and not needed: the bound is within 0.01 anyway."""
        return self._upper(delta, "pld")

    @classmethod
    def mechanism(cls) -> str:
        """ "prv"."""
        return "prv"
