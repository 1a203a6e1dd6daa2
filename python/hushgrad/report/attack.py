"""What somebody who sees everything released could find out at most: the section `risk` of a dataset."""

import math
from functools import lru_cache
from typing import Any

from hushgrad.accounting.risk import AttackBounds
from hushgrad.errors import Unsupported
from hushgrad.report.charges import Charges, composed
from hushgrad.report.numbers import percent_up, to_json

Json = dict[str, Any]

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
PRIORS = (0.001, 0.01)
CURVE = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.04, 0.06, 0.1, *(i / 20 for i in range(3, 21)))
MANY_EVENTS = 64
NOTHING_HOLDS = AttackBounds((), 1.0)


def assess(charges: Charges) -> Json:
    """Upper bounds of three attacks and of the trade-off between them; 1 everywhere when nothing limits an attack."""
    bounds = _bounds(charges.counts)
    return {
        "membership_advantage": bounds.advantage,
        "true_positive_rates": [
            {"false_positive_rate": fpr, "true_positive_rate": bounds.tpr(fpr)} for fpr in FALSE_POSITIVE_RATES
        ],
        "reconstruction": [{"prior": prior, "bound": bounds.reconstruction(prior)} for prior in PRIORS],
        "trade_off": [{"false_positive_rate": fpr, "true_positive_rate": to_json(bounds.tpr(fpr))} for fpr in CURVE],
        "sentences": sentences(bounds),
    }


def sentences(bounds: AttackBounds) -> list[str]:
    """The same in words; every number is rounded against the spender."""
    caught = _in_a_thousand(bounds.tpr(0.001))
    return [
        "Membership: somebody tries to tell whether one given record was used. If they may wrongly accuse 1 in 1,000 of"
        f" the records that were not used, they find at most {caught} of the records that were (without any release: 1"
        " in 1,000).",
        f"Advantage: their rate of right minus wrong accusations is at most {percent_up(bounds.advantage)}, whatever"
        " they accept as wrong accusations. 0 % is blind guessing, 100 % is certainty.",
        "Reconstruction: somebody who could guess a hidden value of a record with a chance of 1 in 1,000 anyway guesses"
        f" it with a chance of at most {percent_up(bounds.reconstruction(0.001))} after seeing everything released.",
    ]


@lru_cache(maxsize=256)
def _bounds(counts: tuple[tuple[str, int], ...]) -> AttackBounds:
    if not counts:
        return AttackBounds(((0.0, 0.0),), 0.0)
    try:
        return AttackBounds.of(composed(counts), quick=len(counts) > MANY_EVENTS)
    except Unsupported:
        return NOTHING_HOLDS


def _in_a_thousand(rate: float) -> str:
    if rate >= 1:
        return "all"
    return f"{math.ceil(rate * 1000):,} in 1,000"
