"""``DifferentiallyPrivateDistributedDataParallel`` in a process group of one, so that such scripts run on one machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hushgrad.errors import Unsupported

__all__ = ["DifferentiallyPrivateDistributedDataParallel", "world_size"]


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


class DifferentiallyPrivateDistributedDataParallel(nn.Module):
    """Passes everything on to ``model``, kept as ``.module``. Raises Unsupported in a process group of more than one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if world_size() > 1:
            raise Unsupported(
                f"[distributed] Expected one process, received a process group of {world_size()}: batches, clipping and noise are those of one "
                "process. Run the script in one; BatchMemoryManager gives large batches in little memory."
            )
        self.module = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        return self.module(*args, **kwargs)
