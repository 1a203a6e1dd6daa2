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
class LaplaceDpEvent(DpEvent):
    """Laplace noise of scale ``noise_multiplier`` times the largest contribution of a record to one number.

    A vector is a composition of its coordinates, each with its own multiplier. >= 0; 0 protects nothing.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.laplace, self.noise_multiplier))


@dataclass(frozen=True)
class DiscreteGaussianDpEvent(DpEvent):
    """Discrete Gaussian noise N_Z(0, standard_deviation^2) on one integer.

    A record contributes an integer of absolute value at most ``sensitivity`` >= 1 (Canonne, Kamath, Steinke 2020).
    """

    standard_deviation: float
    sensitivity: int

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.discrete_gaussian, self.standard_deviation, self.sensitivity))


@dataclass(frozen=True)
class MixtureOfGaussiansDpEvent(DpEvent):
    """Gaussian noise on a sum to which the record contributes ``sensitivities[i]`` with probability ``sampling_probs[i]``.

    Without it the release is N(0, standard_deviation^2) (Choquette-Choo et al. 2024). Sensitivities >= 0; the
    probabilities add up to 1.
    """

    standard_deviation: float
    sensitivities: tuple[float, ...]
    sampling_probs: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensitivities", tuple(self.sensitivities))
        object.__setattr__(self, "sampling_probs", tuple(self.sampling_probs))
        self._keep(
            _handle(
                core.Event.mixture_of_gaussians,
                self.standard_deviation,
                list(self.sensitivities),
                list(self.sampling_probs),
            )
        )


@dataclass(frozen=True)
class PoissonSampledDpEvent(DpEvent):
    """``event`` on a batch that holds every sample independently with ``sampling_probability`` in [0, 1]."""

    sampling_probability: float
    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.poisson_sampled, self.sampling_probability, _handle_of(self.event)))


@dataclass(frozen=True)
class TruncatedSubsampledGaussianDpEvent(DpEvent):
    """Gaussian noise on a Poisson batch, cut to a random subset where it is larger than ``truncated_batch_size``.

    Field names and meaning are dp_accounting's: ``dataset_size`` counts the record in question. An upper bound, next to
    that of PoissonSampledDpEvent where cutting is rare.
    """

    dataset_size: int
    sampling_probability: float
    truncated_batch_size: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        self._keep(
            _handle(
                core.Event.truncated_subsampled_gaussian,
                self.dataset_size,
                self.sampling_probability,
                self.truncated_batch_size,
                self.noise_multiplier,
            )
        )


@dataclass(frozen=True)
class SampledWithoutReplacementDpEvent(DpEvent):
    """``event`` on a uniformly random subset of ``sample_size`` out of ``source_dataset_size`` records.

    The sizes are public, so the question must be about replace-one (or zero-out) neighbours.
    """

    source_dataset_size: int
    sample_size: int
    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(
            _handle(
                core.Event.sampled_without_replacement,
                self.source_dataset_size,
                self.sample_size,
                _handle_of(self.event),
            )
        )


@dataclass(frozen=True)
class ShuffledEpochDpEvent(DpEvent):
    """One pass over the records in random order; ``event`` is released of every batch.

    Every record is in exactly one of a public number of batches. No amplification by the shuffling is claimed.
    """

    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.shuffled_epoch, _handle_of(self.event)))


@dataclass(frozen=True)
class BallsInBinsDpEvent(DpEvent):
    """One pass in which every record chooses one of ``bins`` batches uniformly and independently.

    ``event`` is released of every batch (random allocation; Chua et al. 2024, Feldman and Shenfeld 2025). Several passes
    are a SelfComposedDpEvent of this event.
    """

    bins: int
    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.balls_in_bins, self.bins, _handle_of(self.event)))


@dataclass(frozen=True)
class MatrixFactorizationDpEvent(DpEvent):
    """Gaussian noise correlated over ``steps`` steps (DP-FTRL): releases C x + z, with z independent.

    C is lower-triangular Toeplitz with first column ``coefficients`` (non-negative, non-increasing, the first > 0); banded
    and BLT strategies are given by their coefficients. z has deviation ``noise_multiplier`` times the largest norm of one
    contribution. A record takes part at most ``max_participations`` times, at least ``min_separation`` steps apart.
    """

    noise_multiplier: float
    coefficients: tuple[float, ...]
    steps: int
    min_separation: int
    max_participations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(self.coefficients))
        self._keep(
            _handle(
                core.Event.matrix_factorization,
                self.noise_multiplier,
                list(self.coefficients),
                self.steps,
                self.min_separation,
                self.max_participations,
            )
        )


@dataclass(frozen=True)
class SingleEpochTreeAggregationDpEvent(DpEvent):
    """Binary tree aggregation, restarted after each of ``step_counts`` steps; a record takes part once in all.

    Kairouz et al. 2021, Appendix D. The question must be about zero-out (or replace-one) neighbours.
    """

    noise_multiplier: float
    step_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = (self.step_counts,) if isinstance(self.step_counts, int) else tuple(self.step_counts)
        object.__setattr__(self, "step_counts", counts)
        self._keep(_handle(core.Event.tree_aggregation, self.noise_multiplier, list(self.step_counts)))


@dataclass(frozen=True)
class GroupDpEvent(DpEvent):
    """``event``, where up to ``group_size`` records belong to one user whose privacy is in question."""

    group_size: int
    event: DpEvent

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.group, self.group_size, _handle_of(self.event)))


@dataclass(frozen=True)
class AdaptiveClippingDpEvent(DpEvent):
    """A clipped sum with ``noise_multiplier``, released with the noisy count of unclipped records of the same batch.

    The count is the sum over the batch of (b - 1/2), b the bit "norm <= clip", with Gaussian noise of deviation
    ``count_noise_stddev`` (Andrew et al. 2021). Together they are one Gaussian release.
    """

    noise_multiplier: float
    count_noise_stddev: float

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.adaptive_clipping, self.noise_multiplier, self.count_noise_stddev))


@dataclass(frozen=True)
class RepeatAndSelectDpEvent(DpEvent):
    """``event`` run a random number of times; only the best result is released (Papernot and Steinke 2022).

    ``mean`` >= 1 is that of the number of runs. ``shape`` >= 0 is that of the truncated negative binomial (0: logarithmic,
    1: geometric); math.inf: Poisson.
    """

    event: DpEvent
    mean: float
    shape: float

    def __post_init__(self) -> None:
        self._keep(_handle(core.Event.repeat_and_select, _handle_of(self.event), self.mean, self.shape))


@dataclass(frozen=True)
class FinitePrecisionDpEvent(DpEvent):
    """``event`` released by a machine whose noise is not exactly what ``event`` says.

    Outside an event of probability ``failure``, the Renyi divergences of ``order`` > 1 between the real law of the release
    and the ideal one, in both directions and given everything before, are at most ``divergence`` >= 0.
    """

    event: DpEvent
    order: float
    divergence: float
    failure: float

    def __post_init__(self) -> None:
        self._keep(
            _handle(
                core.Event.finite_precision,
                _handle_of(self.event),
                self.order,
                self.divergence,
                self.failure,
            )
        )


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
        AdaptiveClippingDpEvent,
        BallsInBinsDpEvent,
        ComposedDpEvent,
        DiscreteGaussianDpEvent,
        FinitePrecisionDpEvent,
        GaussianDpEvent,
        GroupDpEvent,
        LaplaceDpEvent,
        MatrixFactorizationDpEvent,
        MixtureOfGaussiansDpEvent,
        NoOpDpEvent,
        NonPrivateDpEvent,
        PoissonSampledDpEvent,
        RepeatAndSelectDpEvent,
        SampledWithoutReplacementDpEvent,
        SelfComposedDpEvent,
        ShuffledEpochDpEvent,
        SingleEpochTreeAggregationDpEvent,
        TruncatedSubsampledGaussianDpEvent,
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
