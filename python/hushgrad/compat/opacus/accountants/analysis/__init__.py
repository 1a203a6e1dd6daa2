"""Opacus' numerics are not part of its scripts' surface."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(
    __name__, "epsilons come from hushgrad.accounting (epsilon, delta, calibrate_noise), as bounds. Use those, or an accountant"
)
