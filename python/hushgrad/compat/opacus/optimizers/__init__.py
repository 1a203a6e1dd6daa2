"""Names of Opacus' optimizers. There is no wrapper: the returned optimizer is the caller's own."""

from typing import TYPE_CHECKING

from hushgrad.compat.opacus._missing import OPTIMIZERS, refuse
from hushgrad.compat.opacus.optimizers.optimizer import DPOptimizer

__all__ = ["DPOptimizer"]

if not TYPE_CHECKING:
    _CLASSES = (
        "AdaClipDPOptimizer",
        "DPOptimizerFastGradientClipping",
        "DPPerLayerOptimizer",
        "DistributedDPOptimizer",
        "DistributedDPOptimizerFastGradientClipping",
        "FSDPOptimizerFastGradientClipping",
        "SimpleDistributedPerLayerOptimizer",
        "get_optimizer_class",
    )
    __getattr__ = refuse(__name__, dict.fromkeys(_CLASSES, OPTIMIZERS))
