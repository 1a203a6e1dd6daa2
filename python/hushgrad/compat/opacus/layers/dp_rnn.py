"""``DPLSTM`` is ``torch.nn.LSTM`` whose states may also be called ``state_init``: same state_dict, packed sequences and projections included."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["DPGRU", "DPLSTM", "DPRNN"]


class _NamedStates(nn.Module):
    def forward(self, input: Any, hx: Any = None, *, state_init: Any = None) -> Any:
        """As in ``torch.nn``; ``state_init`` is Opacus' name for ``hx``. TypeError when both are given."""
        if hx is not None and state_init is not None:
            raise TypeError(f"[{type(self).__name__}] Expected initial states once, received both hx and state_init. Give one of them.")
        return super().forward(input, hx if state_init is None else state_init)


class DPRNN(_NamedStates, nn.RNN):
    """``torch.nn.RNN``."""


class DPGRU(_NamedStates, nn.GRU):
    """``torch.nn.GRU``."""


class DPLSTM(_NamedStates, nn.LSTM):
    """``torch.nn.LSTM``."""
