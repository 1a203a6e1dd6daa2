"""What a bound means for somebody who attacks: the trade-off curve (f-DP) and three attack risks, and back.

All values are upper bounds of the attack, whatever it is and whatever else it knows. They follow from the curve delta(epsilon)
alone, so they hold for every event that has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dataclasses import dataclass

from hushgrad.accounting.bounds import ADD_OR_REMOVE_ONE, delta, epsilon
from hushgrad.accounting.events import DpEvent
from hushgrad.errors import InvalidArgument

#: Where delta(epsilon) is looked at: dense where trade-offs bend.
_EPSILONS = (0.0, *(10 ** (exponent / 8) for exponent in range(-24, 13)), 50.0)
_HIGHEST = 30.0


#: Where epsilon(delta) is looked at by AttackBounds: one such question is several times cheaper than one for delta.
_DELTAS = (0.7, 0.5, 0.35, 0.25, 0.15, 0.08, 0.04, 0.02, 8e-3, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
_FEW_DELTAS = (0.5, 0.1, 0.01, 1e-3, 1e-4)


def _check_probability(where: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InvalidArgument(f"[{where}] Expected 0 <= {name} <= 1, received {value}. Give a probability.")


def _curve(event: DpEvent, adjacency: str) -> list[tuple[float, float]]:
    return [(eps, delta(event, eps, adjacency=adjacency)[1]) for eps in _EPSILONS]


def _tpr(curve: Sequence[tuple[float, float]], fpr: float) -> float:
    # (epsilon, delta)-DP in both directions: TPR <= e^eps FPR + delta and 1 - FPR <= e^eps (1 - TPR) + delta.
    bounds = [1.0]
    for eps, value in curve:
        growth = math.exp(eps)
        bounds += [growth * fpr + value, 1 - (1 - fpr - value) / growth]
    return min(1.0, max(fpr, min(bounds)))


def _lowest(bound: Callable[[float], float], high: float, questions: int = 12) -> float:
    """The smallest of some values of ``bound`` in [0, high], by golden sections. Each is a bound, so the search cannot do harm."""
    low, ratio = 0.0, (math.sqrt(5) - 1) / 2
    left, right = high - ratio * high, ratio * high
    at_left, at_right = bound(left), bound(right)
    seen = [bound(0.0), at_left, at_right]
    for _ in range(questions):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = bound(left)
            seen.append(at_left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = bound(right)
            seen.append(at_right)
    return min(seen)


def _sharpened(event: DpEvent, adjacency: str, fpr: float) -> float:
    """TPR <= e^eps FPR + delta(eps), convex in e^eps. Where that leaves TPR + FPR above 1 the mirror image is the tighter one."""

    def value(eps: float) -> float:
        return delta(event, eps, adjacency=adjacency)[1]

    bound = _lowest(lambda eps: math.exp(eps) * fpr + value(eps), min(-math.log(fpr), _HIGHEST) if fpr > 0 else _HIGHEST)
    if bound > 1 - fpr:
        bound = min(bound, _lowest(lambda eps: 1 - (1 - fpr - value(eps)) * math.exp(-eps), _HIGHEST))
    return min(1.0, max(fpr, bound))


def tpr_at_fpr(event: DpEvent, fpr: float, *, adjacency: str = ADD_OR_REMOVE_ONE) -> float:
    """The largest true-positive rate of any membership test with false-positive rate ``fpr`` in [0, 1]: an upper bound.

    Wasserman and Zhou 2010; Kairouz, Oh and Viswanath 2015, Theorem 2.1.
    """
    _check_probability("tpr_at_fpr", "fpr", fpr)
    return _sharpened(event, adjacency, fpr)


def advantage(event: DpEvent, *, adjacency: str = ADD_OR_REMOVE_ONE) -> float:
    """The largest TPR - FPR of any membership test: the total variation distance, delta at epsilon 0. An upper bound."""
    return delta(event, 0.0, adjacency=adjacency)[1]


def reconstruction_risk(event: DpEvent, prior: float, *, adjacency: str = "replace_one") -> float:
    """The largest probability to reconstruct a record that can be guessed with probability ``prior`` in [0, 1] without it.

    An upper bound: TPR at FPR = prior (Hayes, Mahloujifar, Balle 2023; Kaissis et al. 2023), of neighbours that differ in
    this record. Ask about adjacency "replace_one", or "zero_out" where the attack compares with an empty record.
    """
    _check_probability("reconstruction_risk", "prior", prior)
    return _sharpened(event, adjacency, prior)


def trade_off(
    event: DpEvent, fprs: Sequence[float], *, adjacency: str = ADD_OR_REMOVE_ONE
) -> list[tuple[float, float]]:
    """Points (FPR, smallest FNR of any test) of a trade-off function that the event's lies above: f-DP (Dong et al. 2022)."""
    for fpr in fprs:
        _check_probability("trade_off", "fpr", fpr)
    curve = _curve(event, adjacency)
    return [(fpr, 1 - _tpr(curve, fpr)) for fpr in fprs]


def noise_for_risk(
    risk: Callable[[float], float], target: float, *, lowest: float = 0.05, highest: float = 1e4, tolerance: float = 1e-3
) -> float:
    """The smallest noise multiplier (to ``tolerance``, on the safe side) with ``risk(noise_multiplier) <= target``.

    ``risk`` falls with the noise, for example::

        noise_for_risk(lambda z: tpr_at_fpr(SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps), 0.01), 0.05)

    Raises InvalidArgument where no multiplier up to ``highest`` meets the target.
    """
    if not risk(highest) <= target:
        raise InvalidArgument(
            f"[noise_for_risk] Expected a target that some noise multiplier up to {highest} meets, received {target}. "
            "Raise the target or take fewer steps."
        )
    if risk(lowest) <= target:
        return lowest
    low, high = lowest, highest
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        if risk(middle) <= target:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True)
class AttackBounds:
    """Upper bounds of all attacks from one look at an event, for somebody who asks many questions about it.

    ``points`` are (epsilon, delta) pairs that all hold. The bounds are those of this module, up to some per cent above them:
    cheaper, never below the truth.
    """

    points: tuple[tuple[float, float], ...]
    advantage: float
    """The largest TPR - FPR of any membership test."""

    @classmethod
    def of(cls, event: DpEvent, *, adjacency: str = ADD_OR_REMOVE_ONE, quick: bool = False) -> AttackBounds:
        """Ask for a handful of deltas. ``quick``: fewer, and the advantage from them, for compositions of many events.

        Raises Unsupported as :func:`hushgrad.accounting.epsilon` does.
        """
        points = tuple((epsilon(event, at, adjacency=adjacency)[1], at) for at in (_FEW_DELTAS if quick else _DELTAS))
        points = tuple((eps, at) for eps, at in points if eps < 700)
        if quick or not points:
            return cls(points, _largest_gap(points))
        exact = advantage(event, adjacency=adjacency)
        return cls(((0.0, exact), *points), exact)

    def tpr(self, fpr: float) -> float:
        """The largest true-positive rate of any membership test with false-positive rate ``fpr`` in [0, 1]."""
        _check_probability("AttackBounds.tpr", "fpr", fpr)
        return _tpr(self.points, fpr)

    def reconstruction(self, prior: float) -> float:
        """The largest chance to reconstruct a record that can be guessed with chance ``prior`` in [0, 1] without the release.

        Against a data set in which the record is another one: that is one record less and one more, so the bound is
        ``tpr(tpr(prior))`` (Dong, Roth, Su 2022, Theorem 2.14, for groups of two).
        """
        _check_probability("AttackBounds.reconstruction", "prior", prior)
        return self.tpr(self.tpr(prior))


def _largest_gap(points: Sequence[tuple[float, float]]) -> float:
    # (epsilon, delta)-DP bounds the total variation by (e^eps - 1 + 2 delta) / (e^eps + 1) (Kairouz, Oh, Viswanath 2015).
    gaps = [(math.expm1(eps) + 2 * at) / (math.exp(eps) + 1) for eps, at in points]
    return min(1.0, min(gaps, default=1.0) * (1 + 1e-12))
