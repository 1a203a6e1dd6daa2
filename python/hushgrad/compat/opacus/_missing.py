"""What Opacus has and hushgrad does not: importing it fails with the reason and the alternative."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

__all__ = ["GRADIENTS", "OPTIMIZERS", "explain_missing_modules", "not_offered", "refuse"]

_PACKAGE = "hushgrad.compat.opacus."

GRADIENTS = (
    "hushgrad never holds per-sample gradients: norms and clipped sums come from the backward pass itself. Drop it; every operator works "
    "without a rule of yours"
)
OPTIMIZERS = (
    "an optimizer without an engine would be charged nowhere. Use PrivacyEngine.make_private with clipping=; test with "
    "isinstance(optimizer, DPOptimizer)"
)

#: Modules by the longest beginning of their name.
_MODULES = {
    "": "it is an internal of Opacus. `hushgrad.PrivacyEngine` and the names in docs/migrating_from_opacus.md take its place",
    "accountants.analysis": "epsilons are bounds from hushgrad.accounting (epsilon, delta, calibrate_noise). Use those, or an accountant",
    "grad_sample": GRADIENTS,
    "layers": "torch.nn's own layers train as they are. Use those",
    "optimizers": OPTIMIZERS,
    "utils.adaptive_clipping": 'use PrivacyEngine.make_private(clipping="adaptive", ...): it works in every grad_sample_mode',
    "utils.fsdp_utils": "training is in one process; sharded models are not offered",
    "utils.packed_sequences": "torch.nn.LSTM, GRU and RNN take packed sequences as they are",
    "utils.per_sample_gradients_utils": f"{GRADIENTS}. hushgrad.doctor.examine(model, inputs) checks a model",
    "utils.tensor_utils": GRADIENTS,
    "validators": "use ModuleValidator, or hushgrad.doctor",
}


def not_offered(name: str, instead: str) -> ImportError:
    """The error for one name of Opacus."""
    return ImportError(f"[compat.opacus] Expected a name that hushgrad offers, received {name}: {instead}.")


def refuse(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that raises ImportError for ``names`` (name -> why, and what to use)."""

    def missing(name: str) -> Any:
        if name in names:
            raise not_offered(f"{module}.{name}", names[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return missing


class _Explainer(MetaPathFinder):
    """Asked when no file was found for a module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname.startswith(_PACKAGE):
            name = fullname[len(_PACKAGE) :]
            best = max((key for key in _MODULES if f"{name}.".startswith(f"{key}." if key else "")), key=len)
            raise not_offered(fullname, _MODULES[best])


def explain_missing_modules() -> None:
    """From now on importing a module of Opacus that is not here says why."""
    if not any(isinstance(finder, _Explainer) for finder in sys.meta_path):
        sys.meta_path.append(_Explainer())
