"""Events to and from those of Google's dp_accounting, which is imported only when asked for.

Names and fields are the same there. A meaning that the other side does not have is refused, never approximated.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from hushgrad.accounting import events
from hushgrad.errors import InvalidArgument, Unsupported

#: What both libraries mean by the same name and fields.
_SHARED = (
    "ComposedDpEvent",
    "GaussianDpEvent",
    "LaplaceDpEvent",
    "MixtureOfGaussiansDpEvent",
    "NoOpDpEvent",
    "NonPrivateDpEvent",
    "PoissonSampledDpEvent",
    "RepeatAndSelectDpEvent",
    "SampledWithoutReplacementDpEvent",
    "SelfComposedDpEvent",
    "SingleEpochTreeAggregationDpEvent",
    "TruncatedSubsampledGaussianDpEvent",
)
_OURS = {name: getattr(events, name) for name in _SHARED}


def _library() -> Any:
    try:
        return import_module("dp_accounting.dp_event")
    except ImportError:
        raise Unsupported("[dp_accounting] Expected the package dp_accounting to be installed. pip install dp-accounting.") from None


def from_dp_accounting(event: object) -> events.DpEvent:
    """The same event in this package.

    Raises InvalidArgument for what is no event of dp_accounting, or holds values outside the domain, and Unsupported for
    an event that this package does not have.
    """
    library = _library()
    if not isinstance(event, library.DpEvent):
        raise InvalidArgument(f"[from_dp_accounting] Expected an event of dp_accounting, received {type(event).__name__}.")
    name = type(event).__name__
    if name == "UnsupportedDpEvent":
        return events.UnsupportedDpEvent("from dp_accounting")
    if name not in _OURS:
        raise Unsupported(f"[from_dp_accounting] Expected an event that both libraries have, received {name}.")
    return _OURS[name](*(_import_value(library, getattr(event, field)) for field in _fields(_OURS[name])))  # type: ignore[no-any-return]


def to_dp_accounting(event: events.DpEvent) -> Any:
    """The same event in dp_accounting. Raises Unsupported for an event that it does not have."""
    library = _library()
    name = type(event).__name__
    if name == "UnsupportedDpEvent":
        return library.UnsupportedDpEvent()
    if name not in _OURS:
        raise Unsupported(f"[to_dp_accounting] Expected an event that both libraries have, received {name}.")
    return getattr(library, name)(*(_export_value(getattr(event, field)) for field in _fields(type(event))))


def _fields(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init and not field.name.startswith("_")]


def _import_value(library: Any, value: Any) -> Any:
    if isinstance(value, library.DpEvent):
        return from_dp_accounting(value)
    if isinstance(value, int | float):
        return value
    # step_counts may be one number there.
    return tuple(_import_value(library, item) for item in value)


def _export_value(value: Any) -> Any:
    if isinstance(value, events.DpEvent):
        return to_dp_accounting(value)
    return [_export_value(item) for item in value] if isinstance(value, tuple) else value
