"""Opacus' Gaussian accountant by name; its numbers are replaced."""

from __future__ import annotations

from typing import Any

from hushgrad.compat.opacus.accountants.accountant import EventAccountant

__all__ = ["GaussianAccountant"]


class GaussianAccountant(EventAccountant):
    """Opacus' central limit approximation can report less than was spent; this reports the same upper bound as "prv"."""

    def get_epsilon(self, delta: float, poisson: bool = True, **kwargs: Any) -> float:
        """Upper end of epsilon at ``delta``. ``poisson=False``: no amplification by sampling, and replacement of a record."""
        if poisson:
            return self._upper(delta, "pld")
        replaced = GaussianAccountant()
        replaced.history = [(noise / 2, 1.0, steps) for noise, _, steps in self.history]
        return max(self._upper(delta, "pld"), replaced._upper(delta, "pld"))

    @classmethod
    def mechanism(cls) -> str:
        """ "gdp"."""
        return "gdp"
