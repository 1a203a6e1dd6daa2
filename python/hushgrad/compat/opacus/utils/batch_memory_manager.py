"""Virtual batches: ``hushgrad.BatchMemoryManager`` takes Opacus' arguments as it is."""

from typing import TYPE_CHECKING

from hushgrad.batch_memory_manager import BatchMemoryManager
from hushgrad.compat.opacus._missing import refuse

__all__ = ["BatchMemoryManager"]

if not TYPE_CHECKING:
    _MANAGER = "the split of a batch and its one charge belong together. Use BatchMemoryManager"
    __getattr__ = refuse(__name__, {"BatchSplittingSampler": _MANAGER, "wrap_data_loader": _MANAGER})
