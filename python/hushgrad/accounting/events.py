"""What a mechanism did, as immutable values; named as in dp_accounting.

Every event is checked when it is made, by the same code that reads ledgers: a value outside its domain raises
InvalidArgument. At most 64 levels deep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hushgrad.accounting._native import core
from hushgrad.errors import InvalidArgument


def _handle(maker: Any, *arguments: object) -> Any:
    try:
        return maker(*arguments)
    except TypeError:
        shown = ", ".join(type(argument).__name__ for argument in arguments)
        raise InvalidArgument(
            f"[{maker.__name__}] Expected the arguments of an event, received {shown}. Look at the class's signature."
        ) from None


def _handle_of(event: object) -> Any:
    if not isinstance(event, DpEvent):
        raise InvalidArgument(
            f"[event] Expected an event of hushgrad.accounting, received {type(event).__name__}. "
            "Make one of its classes."
        )
    return event._core_event


@dataclass(frozen=True)
class DpEvent:
    """Base of all events."""

    _core_event: Any = field(init=False, repr=False, compare=False, hash=False, default=None)

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no white space, shortest decimals. Equal events give equal text."""
        text: str = self._core_event.to_json()
        return text

    def _keep(self, handle: Any) -> None:
        object.__setattr__(self, "_core_event", handle)


@dataclass(frozen=True)
class GaussianDpEvent(DpEvent):
    """Gaussian noise of deviation ``noise_multiplier`` times the l2 sensitivity. Finite and >= 0; 0 protects nothing."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.gaussian, self.noise_multiplier))


@dataclass(frozen=True)
class PoissonSampledDpEvent(DpEvent):
    """``event`` on a batch that holds every sample independently with ``sampling_probability`` in [0, 1]."""

    sampling_probability: float
    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.poisson_sampled, self.sampling_probability, _handle_of(self.event)))


@dataclass(frozen=True)
class SelfComposedDpEvent(DpEvent):
    """``event``, ``count`` >= 0 times with fresh randomness; later ones may depend on the results of earlier ones."""

    event: DpEvent
    count: int

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.self_composed, _handle_of(self.event), self.count))


@dataclass(frozen=True)
class ComposedDpEvent(DpEvent):
    """All of ``events``; later ones may depend on the results of earlier ones. None at all is no event."""

    events: tuple[DpEvent, ...]

    def __init__(self, events: Iterable[DpEvent]) -> None:
        object.__setattr__(self, "events", tuple(events))
        self._keep(core.Event.composed([_handle_of(event) for event in self.events]))


@dataclass(frozen=True)
class NoOpDpEvent(DpEvent):
    """Touched no private data."""

    def __post_init__(self) -> None:
        self._keep(core.Event.no_op())


@dataclass(frozen=True)
class NonPrivateDpEvent(DpEvent):
    """Released private data without protection."""

    def __post_init__(self) -> None:
        self._keep(core.Event.non_private())


@dataclass(frozen=True)
class UnsupportedDpEvent(DpEvent):
    """Something that no accountant here can bound. ``reason`` goes into messages and ledgers: no secrets."""

    reason: str

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.unsupported, self.reason))


_CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ComposedDpEvent,
        GaussianDpEvent,
        NoOpDpEvent,
        NonPrivateDpEvent,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
        UnsupportedDpEvent,
    )
}


def _wrap(value: Any) -> Any:
    if isinstance(value, list):
        return [_wrap(item) for item in value]
    if not isinstance(value, core.Event):
        return value
    return _CLASSES[value.type_name](*(_wrap(item) for item in value.fields()))


def event_from_json(text: str) -> DpEvent:
    """The event that ``to_json`` wrote; key order and white space are free.

    Raises InvalidArgument on a missing, unknown or repeated key, an unknown type, a value outside its domain, and on
    text that is too long or too deep.
    """
    event: DpEvent = _wrap(_handle(core.Event.from_json, text))
    return event
