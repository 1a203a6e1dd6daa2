"""What the same training would cost under other assumptions, and how much noise other budgets would need."""

import json
import math
from functools import lru_cache
from typing import Any

from hushgrad import accounting
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.report.charges import Charges
from hushgrad.report.numbers import to_json

Json = dict[str, Any]

CALIBRATION_EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)

AS_CHARGED = "As it was charged: every record joins every batch by a secret chance of its own"
SHUFFLED = "If the records were shuffled instead, each used once an epoch (no gain from the shuffling is proven)"
EVERY_STEP = "If every step used every record: no gain from sampling at all"


def sampling_assumptions(charges: Charges, delta: float) -> list[Json]:
    """Epsilon as charged, shuffled, and without any gain from sampling; empty unless every event is a Poisson Gaussian.

    TensorFlow Privacy's statement shows the first two: a trainer that shuffles, and is accounted for as if it sampled,
    understates epsilon.
    """
    steps = [(*step, count) for key, count in charges.counts if (step := _poisson_gaussian(json.loads(key)))]
    if not steps or len(steps) != len(charges.counts):
        return []
    return [
        _row("poisson", AS_CHARGED, charges.epsilon(delta)[1]),
        _row("shuffled", SHUFFLED, _upper([_shuffled(q, z, count) for q, z, count in steps], delta)),
        _row("every_step", EVERY_STEP, _upper([_every_step(z, count) for _, z, count in steps], delta)),
    ]


def calibration(charges: Charges, delta: float) -> Json | None:
    """The noise that a run like the longest one here would need for several epsilons; None without a Poisson run."""
    found = [(count, step) for key, count in charges.counts if (step := _poisson_gaussian(json.loads(key)))]
    if not found:
        return None
    count, (rate, noise) = max(found)
    rows = [{"epsilon": target, "noise_multiplier": _noise(target, delta, rate, count)} for target in CALIBRATION_EPSILONS]
    return {"sampling_rate": rate, "steps": count, "delta": delta, "used": noise, "rows": rows}


@lru_cache(maxsize=1024)
def _noise(target: float, delta: float, rate: float, steps: int) -> float | None:
    try:
        return accounting.calibrate_noise(target_epsilon=target, target_delta=delta, sampling_rate=rate, steps=steps)
    except InvalidArgument:
        return None


def _poisson_gaussian(event: Json) -> tuple[float, float] | None:
    if event["type"] == "FinitePrecisionDpEvent":
        event = event["event"]
    if event["type"] != "PoissonSampledDpEvent" or event["event"]["type"] != "GaussianDpEvent":
        return None
    rate, noise = event["sampling_probability"], event["event"]["noise_multiplier"]
    return (rate, noise) if rate > 0 and noise > 0 else None


def _every_step(noise: float, steps: int) -> accounting.DpEvent:
    return accounting.SelfComposedDpEvent(accounting.GaussianDpEvent(noise), steps)


def _shuffled(rate: float, noise: float, steps: int) -> accounting.DpEvent:
    epoch = accounting.ShuffledEpochDpEvent(accounting.GaussianDpEvent(noise))
    return accounting.SelfComposedDpEvent(epoch, math.ceil(rate * steps))


def _upper(events: list[accounting.DpEvent], delta: float) -> float:
    try:
        return accounting.epsilon(accounting.ComposedDpEvent(events), delta)[1]
    except Unsupported:
        return math.inf


def _row(code: str, text: str, upper: float) -> Json:
    return {"assumption": code, "text": text, "epsilon": to_json(upper)}
