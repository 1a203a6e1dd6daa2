"""What training charges for an ideal event: the same with the distance of the machine's noise from the ideal one."""

from __future__ import annotations

from torch import nn

from hushgrad import _core
from hushgrad.accounting import DpEvent, FinitePrecisionDpEvent


def charged(event: DpEvent, noise_multiplier: float, module: nn.Module, steps: int = 1) -> FinitePrecisionDpEvent:
    """steps: that one charge pays for. docs/proofs/lattice_gaussian.md, section 4."""
    order, divergence, failure = _core.fast_noise_precision(noise_multiplier, [p.numel() for p in module.parameters()])
    return FinitePrecisionDpEvent(event, order, steps * divergence, steps * failure)
