"""How much privacy was spent, and how much noise a budget needs.

Bounds are intervals: ``upper`` is the guarantee, ``lower`` shows how much of it is slack of the computation. All of them
are for add-or-remove-one adjacency. Imports neither torch nor numpy.

    >>> from hushgrad.accounting import *
    >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0))
    >>> lower, upper = epsilon(SelfComposedDpEvent(step, 10_000), delta=1e-6)
    >>> round(lower, 2), round(upper, 2)
    (6.91, 6.91)
"""

from hushgrad.accounting.bounds import calibrate_noise, delta, epsilon
from hushgrad.accounting.events import (
    AdaptiveClippingDpEvent,
    BallsInBinsDpEvent,
    ComposedDpEvent,
    DiscreteGaussianDpEvent,
    DpEvent,
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
    event_from_json,
)

__all__ = [
    "AdaptiveClippingDpEvent",
    "BallsInBinsDpEvent",
    "ComposedDpEvent",
    "DiscreteGaussianDpEvent",
    "DpEvent",
    "FinitePrecisionDpEvent",
    "GaussianDpEvent",
    "GroupDpEvent",
    "LaplaceDpEvent",
    "MatrixFactorizationDpEvent",
    "MixtureOfGaussiansDpEvent",
    "NoOpDpEvent",
    "NonPrivateDpEvent",
    "PoissonSampledDpEvent",
    "RepeatAndSelectDpEvent",
    "SampledWithoutReplacementDpEvent",
    "SelfComposedDpEvent",
    "ShuffledEpochDpEvent",
    "SingleEpochTreeAggregationDpEvent",
    "TruncatedSubsampledGaussianDpEvent",
    "UnsupportedDpEvent",
    "calibrate_noise",
    "delta",
    "epsilon",
    "event_from_json",
]
