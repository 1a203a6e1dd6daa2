"""Private training in several processes: which of them train a module together, and who speaks to the ledger.

Under ``DistributedDataParallel`` every process draws the same batches and takes its share of the records; clipped sums are added
up on the group's first process, which charges and adds the noise once; every process steps with the same gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hushgrad import _torch
from hushgrad.errors import Unsupported

__all__ = ["Replicated", "process_count", "processes_of", "ranks_of"]

_EXCHANGING = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DataParallel")


def process_count() -> int:
    """Processes of the default group; 1 without one."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


class Replicated(nn.Module):
    """Passes everything on to ``module``; at construction the first process's parameters and buffers are given to all.

    ``DistributedDataParallel`` does the same and works as well; this one has no reducer of its own that could get in the way.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        if process_count() > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(tensor.detach(), src=0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output."""
        return self.module(*args, **kwargs)


def processes_of(module: nn.Module) -> int:
    """How many processes train ``module`` together: 1 unless it is wrapped for several."""
    if isinstance(module, DistributedDataParallel):
        return torch.distributed.get_world_size(module.process_group)
    return process_count() if isinstance(module, Replicated) else 1


def ranks_of(module: nn.Module) -> _torch.Ranks | None:
    """The processes that train ``module`` together, or None for one process. Collective under a process group of more than one.

    Raises:
        Unsupported: several processes and a module that is not wrapped for them, or is wrapped by something that exchanges
            gradients before they are clipped.
    """
    for name, child in module.named_modules():
        exchanging = any(base.__name__ in _EXCHANGING for base in type(child).__mro__)
        if exchanging and not (child is module and isinstance(child, DistributedDataParallel)):
            raise Unsupported(
                f"[make_private] Expected a module whose gradients stay in one process, received '{name}' ({type(child).__name__}), which exchanges "
                "them before they are clipped. Wrap the whole model in torch.nn.parallel.DistributedDataParallel, or pass what it wraps (.module) and "
                "train in one process."
            )
    if isinstance(module, DistributedDataParallel):
        _stop_exchange(module)
        return _own_group(module.process_group)
    if process_count() == 1:
        return None
    if not isinstance(module, Replicated):
        raise Unsupported(
            f"[make_private] Expected a module in DistributedDataParallel in a process group of {process_count()}, received one that is not wrapped: "
            "every process would train a model of its own and charge for it. Wrap the model first, or train in one process."
        )
    return _own_group(torch.distributed.group.WORLD)


def _stop_exchange(module: DistributedDataParallel) -> None:
    # The reducer waits for gradients that are cut out of the graph; they are summed after clipping instead. Without it buffers are
    # not exchanged at each forward pass either: processes may make different numbers of passes (virtual batches).
    module.require_backward_grad_sync = False
    module.require_forward_param_sync = False


def _own_group(group: Any) -> _torch.Ranks | None:
    # A group of our own, for tensors on the CPU: the messages of the user's group must not mix with ours.
    members = torch.distributed.get_process_group_ranks(group)
    if len(members) == 1:
        return None
    own = torch.distributed.new_group(members, backend="gloo", use_local_synchronization=True)
    return _torch.Ranks(own.group_name)
