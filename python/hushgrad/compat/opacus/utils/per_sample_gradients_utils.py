"""Opacus compares its own per-sample gradients with a loop here."""

from hushgrad.compat.opacus._missing import GRADIENTS, not_offered

raise not_offered(__name__, f"{GRADIENTS}. `hushgrad doctor` and hushgrad.doctor.examine check a model")
