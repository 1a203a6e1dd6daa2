"""Opacus' utilities, as far as scripts use them."""

from hushgrad.compat.opacus.utils import module_utils, uniform_sampler
from hushgrad.compat.opacus.utils.batch_memory_manager import BatchMemoryManager

__all__ = ["BatchMemoryManager", "module_utils", "uniform_sampler"]
