"""What Opacus has and hushgrad does not: importing it fails with the reason and the alternative."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["GRADIENTS", "not_offered", "refuse"]

#: Why there is nothing per sample to touch.
GRADIENTS = (
    "hushgrad never holds per-sample gradients: norms and clipped sums come from the backward pass itself. Drop it; every operator works "
    "without a rule of yours"
)


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
