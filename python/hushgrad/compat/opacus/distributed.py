"""``DifferentiallyPrivateDistributedDataParallel``: one model, several processes, one privacy budget."""

from __future__ import annotations

from hushgrad.processes import Replicated

__all__ = ["DifferentiallyPrivateDistributedDataParallel"]


class DifferentiallyPrivateDistributedDataParallel(Replicated):
    """Passes everything on to ``model``, kept as ``.module``; at construction every process gets the first one's weights."""
