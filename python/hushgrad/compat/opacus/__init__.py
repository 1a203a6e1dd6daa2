"""Opacus' names, arguments and return shapes (of 1.6) over hushgrad's engine.

>>> from hushgrad.compat.opacus import PrivacyEngine      # was: from opacus import PrivacyEngine      # doctest: +SKIP

Guarantee: that of ``hushgrad.PrivacyEngine``. The ledger is charged before noise is added, noise and batches come from the
system's secure generator, every number that reports epsilon is an upper bound. Where Opacus' behaviour and that guarantee
disagree, the guarantee wins; docs/migrating_from_opacus.md lists the differences.
"""

from hushgrad.compat.opacus import utils
from hushgrad.compat.opacus._missing import explain_missing_modules
from hushgrad.compat.opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from hushgrad.compat.opacus.privacy_engine import PrivacyEngine
from hushgrad.compat.opacus.version import __version__

__all__ = [
    "GradSampleModule",
    "GradSampleModuleFastGradientClipping",
    "PrivacyEngine",
    "__version__",
    "utils",
]

explain_missing_modules()
