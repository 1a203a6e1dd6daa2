"""Helpers of Opacus' per-sample gradient rules."""

from hushgrad.compat.opacus._missing import GRADIENTS, not_offered

raise not_offered(__name__, GRADIENTS)
