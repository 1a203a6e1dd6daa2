"""What a run says about how it trained, in a closed vocabulary.

A plan is free text to the ledger. Of it only named settings are copied, numbers as numbers and texts as short words: a
statistic of the data that slipped into a plan (a batch size, a gradient norm, a loss) must not reach a page for release.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

NUMBERS = (
    "accumulation_steps", "bins", "cap", "dataset_size", "epochs", "expected_batch_size", "max_batch_size", "max_grad_norm",
    "max_records_per_user", "min_separation", "noise_multiplier", "sampling_rate", "steps", "target_delta", "target_epsilon",
)  # fmt: skip
TEXTS = (
    "accountant", "adjacency", "clipping", "hushgrad", "loss", "loss_reduction", "mechanism", "noise", "random", "sampler",
    "sampling", "sensitivity", "torch", "unit",
)  # fmt: skip
SWITCHES = ("batch_first", "fips", "poisson_sampling")
"""What may be copied from a plan, by the type of its value."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,63}|[0-9]{1,4}(\.[0-9]{1,4}){1,3}([.+-][A-Za-z0-9.]{1,24})?")

_ORDER = {
    "sensitivity": ("not recorded", "empirical", "certified"),
    "random": ("insecure", "not recorded", "secure"),
    "float_safety": ("not recorded", "lattice", "integers"),
}
"""From the weakest to the strongest."""


def shown(plan: Json) -> Json:
    """The named settings of a plan whose values have the type and look that they should have."""
    return {
        **{key: plan[key] for key in NUMBERS if is_number(plan.get(key))},
        **{key: plan[key] for key in SWITCHES if isinstance(plan.get(key), bool)},
        **{key: plan[key] for key in TEXTS if isinstance(plan.get(key), str) and _WORD.fullmatch(plan[key])},
    }


def of_plan(plan: Json) -> Json:
    """What matters for trust, always all of it: "not recorded" where the plan does not say."""
    sensitivity = plan.get("sensitivity")
    noise = plan.get("noise")
    on_a_lattice = isinstance(noise, str) and "lattice" in noise
    certified = sensitivity == "certified"
    return {
        "sensitivity": sensitivity if sensitivity in ("certified", "empirical") else "not recorded",
        "random": _random(plan),
        "float_safety": "integers" if certified and on_a_lattice else "lattice" if on_a_lattice else "not recorded",
        "noise": noise if isinstance(noise, str) and _WORD.fullmatch(noise) else "not recorded",
        "loss": plan["loss"] if plan.get("loss") in ("checked", "unchecked") else "not recorded",
    }


def weakest(fact: str, values: Sequence[str]) -> str:
    """Of several runs; "not recorded" of none."""
    order = _ORDER[fact]
    return min(values, key=order.index, default="not recorded")


def is_number(value: object) -> bool:
    """Whether it is a finite number that JSON can carry exactly."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _random(plan: Json) -> str:
    if _is_insecure(plan):
        return "insecure"
    said = plan.get("random")
    return "secure" if isinstance(said, str) and "drbg" in said.lower() else "not recorded"


def _is_insecure(plan: Json) -> bool:
    """Whether the run says that its randomness could be seeded. Names and values are matched broadly on purpose."""
    return any(
        ("insecure" in key.lower() and value) or (isinstance(value, str) and "insecure" in value.lower())
        for key, value in plan.items()
    )
