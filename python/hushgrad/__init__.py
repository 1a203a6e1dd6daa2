"""hushgrad: differentially private training for PyTorch, with a budget ledger and sealed checkpoints.

``import hushgrad`` and everything on accounting, ledgers, keys and reports works without PyTorch; the names that train
(``PrivacyEngine``, ``BatchMemoryManager``, ``checkpoint``, ``doctor``, ``losses``, ``compat.opacus``) import it when they are first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from hushgrad import errors

if TYPE_CHECKING:
    from hushgrad import accounting, checkpoint, compat, doctor, keys, ledger, losses, report
    from hushgrad.batch_memory_manager import BatchMemoryManager
    from hushgrad.engine import PrivacyEngine
    from hushgrad.insecure_seed import InsecureSeed

__version__ = "0.1.0"

__all__ = [
    "BatchMemoryManager",
    "InsecureSeed",
    "PrivacyEngine",
    "__version__",
    "accounting",
    "checkpoint",
    "cmake_prefix_path",
    "compat",
    "doctor",
    "errors",
    "keys",
    "ledger",
    "losses",
    "report",
]

#: For C++ builds against an installed wheel: ``cmake -DCMAKE_PREFIX_PATH=...``, as ``torch.utils.cmake_prefix_path``.
cmake_prefix_path = os.path.join(os.path.dirname(__file__), "share", "cmake")

_CLASSES = {
    "BatchMemoryManager": "hushgrad.batch_memory_manager",
    "InsecureSeed": "hushgrad.insecure_seed",
    "PrivacyEngine": "hushgrad.engine",
}
_MODULES = ("accounting", "checkpoint", "compat", "doctor", "keys", "ledger", "losses", "report")


if not TYPE_CHECKING:  # to a type checker this would make every name of the package exist

    def __getattr__(name):
        if name in _CLASSES:
            return getattr(importlib.import_module(_CLASSES[name]), name)
        if name in _MODULES:
            return importlib.import_module(f"hushgrad.{name}")
        raise AttributeError(f"module 'hushgrad' has no attribute {name!r}")
