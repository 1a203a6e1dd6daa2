"""Every value of the collection golden/accounting.json by the rule of its kind; none may be left over in silence."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hushgrad.accounting import (
    BallsInBinsDpEvent,
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    GroupDpEvent,
    LaplaceDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    SingleEpochTreeAggregationDpEvent,
    TruncatedSubsampledGaussianDpEvent,
    calibrate_noise,
    delta,
    epsilon,
)
from hushgrad.accounting.risk import advantage, tpr_at_fpr

Entry = dict[str, Any]

ROOT = os.environ.get("HUSHGRAD_SHARED_DIR") or str(Path(__file__).parents[2].parent / "shared")
PATH = Path(ROOT) / "golden" / "accounting.json"
ENTRIES: list[Entry] = json.loads(PATH.read_text())["entries"] if PATH.is_file() else []

#: What no event of this package describes, and where its parts are tested instead.
NO_EVENT = {
    "advanced_composition": "a formula for (epsilon, delta) alone",
    "constant_rdp": "a conversion alone; SAME_METHOD in test_accounting.py reproduces it",
    "discrete_gaussian_truncated_single": "truncated noise is not an event; test_mechanisms.py has the untruncated one",
    "eps_delta_events": "no event of only (epsilon, delta)",
    "randomized_response": "no event of randomised response",
    "repeat_and_select_pure_dp": "pure epsilon has no event; test_mechanisms.py compares Gaussian runs",
}
ADJACENCY = {
    "replace_one": "replace_one",
    "substitute_one": "replace_one",
    "replace_special_zero_out": "zero_out",
    "replace_special_or_default": "zero_out",
}


def training(q: float, sigma: float, steps: int) -> DpEvent:
    return SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)


def sampled(p: Entry) -> DpEvent:
    if "composition" in p:
        return ComposedDpEvent([training(part["q"], part["sigma"], part["steps"]) for part in p["composition"]])
    sigma = p.get("effective_sigma", p["sigma"]) / p.get("sensitivity", 1)
    steps = p["steps"] if "steps" in p else math.ceil(p["epochs"] / p["q"])
    return training(p.get("q") or 1.0, sigma, steps)


def gaussian(p: Entry) -> DpEvent:
    sigma = 1 / p["mu"] if "sigma" not in p else p.get("effective_sigma", p["sigma"])
    return SelfComposedDpEvent(GaussianDpEvent(sigma), p.get("steps", 1))


def group(p: Entry) -> DpEvent:
    k = p["max_examples_per_user"]
    sigma = p["sigma"] / 2  # micro-batches double the sensitivity
    if "q" not in p:
        return GroupDpEvent(k, SelfComposedDpEvent(GaussianDpEvent(sigma), p["steps"]))
    return GroupDpEvent(k, training(p["q"], sigma, math.ceil(p["epochs"] / p["q"])))


def truncated(p: Entry) -> DpEvent:
    return ComposedDpEvent(
        [
            SelfComposedDpEvent(TruncatedSubsampledGaussianDpEvent(e["n"], e["q"], e["B"], e["sigma"]), e["steps"])
            for e in p["events"]
        ]
    )


EVENTS: dict[str, Callable[[Entry], DpEvent]] = {
    "poisson_subsampled_gaussian_composed": sampled,
    "poisson_subsampled_gaussian_single": sampled,
    "gaussian": gaussian,
    "gaussian_composed": gaussian,
    "gaussian_per_epoch": gaussian,
    "group_privacy": group,
    "laplace_composed": lambda p: ComposedDpEvent([SelfComposedDpEvent(LaplaceDpEvent(e["b"]), e["steps"]) for e in p["events"]]),
    "mixture_of_gaussians_single": lambda p: MixtureOfGaussiansDpEvent(p["sigma"], p["sensitivities"], p["probs"]),
    "single_epoch_tree_aggregation": lambda p: SingleEpochTreeAggregationDpEvent(p["sigma"], (p["steps"],)),
    "truncated_poisson_subsampled_gaussian": truncated,
    "balls_in_bins_gaussian_single_epoch": lambda p: BallsInBinsDpEvent(p["t"], GaussianDpEvent(p["sigma"])),
}


def check_upper_bound(entry: Entry, event: DpEvent, adjacency: str) -> None:
    if entry["epsilon"] is None:
        return check_rdp(entry)
    upper = epsilon(event, entry["delta"], adjacency=adjacency)[1]
    if "epsilon_lower" in entry:
        assert entry["epsilon_lower"] <= upper
    assert upper <= entry["epsilon"] + entry["tolerance"]
    if entry["accountant"] == "rdp":
        # Same conversion, at least as many orders; older values use a looser conversion.
        assert epsilon(event, entry["delta"], "rdp", adjacency=adjacency)[1] <= entry["epsilon"] + entry["tolerance"]
    return None


def check_rdp(entry: Entry) -> None:
    # Divergences have no function of their own here. An order's divergence D bounds epsilon: at every delta the accountant's
    # upper end is at most the conversion of D.
    p = entry["parameters"]
    orders = p["orders"] if "orders" in p else [p["order"]]
    values = entry["rdp_expected"] if isinstance(entry["rdp_expected"], list) else [entry["rdp_expected"]]
    for order, divergence in zip(orders, values, strict=True):
        for target in (1e-3, 1e-6, 1e-9):
            converted = divergence * (1 + entry["rtol"]) + math.log1p(-1 / order) - math.log(target * order) / (order - 1)
            assert epsilon(sampled(p), target, "rdp")[1] <= max(converted, 0) + 1e-9
            assert epsilon(sampled(p), target)[0] <= max(converted, 0) + 1e-9


def check_estimate(entry: Entry, event: DpEvent, adjacency: str) -> None:
    if entry["accountant"] == "rdp":
        assert epsilon(event, entry["delta"], "rdp")[1] == pytest.approx(entry["epsilon"], abs=entry["tolerance"])
        return
    lower, upper = epsilon(event, entry["delta"], adjacency=adjacency)
    assert lower - entry["tolerance"] <= entry["epsilon"]
    if entry["mechanism"] == "truncated_poisson_subsampled_gaussian":
        # An upper bound there: a batch that is cut counts as a replaced record, which is "slightly loose".
        assert epsilon(event, entry["delta"], adjacency="replace_one")[1] <= entry["epsilon"] + entry["tolerance"]
        return
    assert entry["epsilon"] <= upper + entry["tolerance"]
    if "tpr_at_fpr_0_1" in entry:
        assert tpr_at_fpr(event, 0.1) == pytest.approx(entry["tpr_at_fpr_0_1"], abs=2e-3)


def check_exact(entry: Entry, event: DpEvent, adjacency: str) -> None:
    if entry["accountant"] == "analytic":
        lower, upper = epsilon(event, entry["delta"])
        assert lower - entry["tolerance"] <= entry["epsilon"] <= upper + entry["tolerance"]
        assert advantage(event) == pytest.approx(entry["advantage"], abs=1e-9)
        assert entry["tpr_at_fpr_0_01"] - 1e-9 <= tpr_at_fpr(event, 0.01) <= entry["tpr_at_fpr_0_01"] * 1.02
        return
    if entry["epsilon"] < 0:
        # The other direction at -epsilon: delta(epsilon) = 1 - e^epsilon + e^epsilon delta'(-epsilon).
        growth = math.exp(entry["epsilon"])
        assert (entry["delta"] - 1 + growth) / growth <= delta(event, -entry["epsilon"])[1] + entry["tolerance"]
        return
    lower, upper = delta(event, entry["epsilon"], adjacency=adjacency)
    assert entry["delta"] <= upper + entry["tolerance"]
    if entry["adjacency"] in ("add_one", "remove_one"):
        return  # one direction of two: the other may be worse
    assert lower <= entry["delta"] + entry["tolerance"]
    assert upper <= entry["delta"] * 1.002 + entry["tolerance"]


def check_calibration(entry: Entry) -> None:
    p, target = entry["parameters"], entry["epsilon"]
    ours = calibrate_noise(target_epsilon=target, target_delta=entry["delta"], sampling_rate=p["q"], steps=p["steps"])
    reached = epsilon(training(p["q"], ours, p["steps"]), entry["delta"])
    assert target * 0.998 <= reached[1] <= target
    if entry["accountant"] == "gdp_clt":
        assert ours > entry["sigma_expected"]  # which promises too much
    else:
        assert ours <= entry["sigma_expected"] * (1 + 1e-3)


def check(entry: Entry) -> None:
    kind, adjacency = entry["kind"], ADJACENCY.get(entry["adjacency"], "add_or_remove_one")
    if kind == "calibration":
        return check_calibration(entry)
    event = EVENTS[entry["mechanism"]](entry["parameters"])
    if kind == "upper_bound":
        return check_upper_bound(entry, event, adjacency)
    if kind == "estimate":
        return check_estimate(entry, event, adjacency)
    if kind in ("exact", "exact_derived"):
        return check_exact(entry, event, adjacency)
    lower, upper = epsilon(event, entry["delta"], adjacency=adjacency)
    assert 0 <= lower <= upper
    if kind == "approximation_not_a_bound":
        assert entry["epsilon"] + entry["tolerance"] < lower
    elif kind == "target_not_exceeded":
        assert upper <= entry["epsilon"] + entry["tolerance"]
    elif kind == "upper_limit":
        assert upper < entry["epsilon_less_than"]
    else:
        assert kind == "robustness"
        assert upper <= entry.get("epsilon_less_than_or_equal", math.inf)
        assert upper > entry.get("epsilon_greater_than", -1)
    return None


@pytest.mark.skipif(not ENTRIES, reason="the collection golden/accounting.json is not here (set HUSHGRAD_SHARED_DIR)")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_value(entry: Entry) -> None:
    if entry["mechanism"] in NO_EVENT:
        assert entry["mechanism"] not in EVENTS
        return
    check(entry)


@pytest.mark.skipif(not ENTRIES, reason="the collection golden/accounting.json is not here (set HUSHGRAD_SHARED_DIR)")
def test_nothing_is_left_over() -> None:
    assert len(ENTRIES) == 123
    assert {entry["mechanism"] for entry in ENTRIES} == set(EVENTS) | set(NO_EVENT)
    assert sum(entry["mechanism"] in NO_EVENT for entry in ENTRIES) == 14
