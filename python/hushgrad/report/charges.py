"""The charges of a dataset in order, and what they compose to."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hushgrad import accounting
from hushgrad.errors import Unsupported
from hushgrad.ledger import Step

Json = dict[str, Any]


@dataclass(frozen=True)
class Charges:
    """One entry a training step: whose run it was, and which event (by its canonical JSON) it charged."""

    run_ids: tuple[str, ...]
    keys: tuple[str, ...]
    events: dict[str, accounting.DpEvent]

    @classmethod
    def read(cls, steps: Iterable[Step]) -> "Charges":
        """In the order of the ledger."""
        rows = list(steps)
        texts = {id(row.event): row.event.to_json() for row in rows}
        keys = tuple(texts[id(row.event)] for row in rows)
        events = {key: row.event for key, row in zip(keys, rows, strict=True)}
        return cls(tuple(row.run_id for row in rows), keys, events)

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int) -> "Charges":
        """The oldest `count` charges."""
        return Charges(self.run_ids[:count], self.keys[:count], self.events)

    def of_run(self, run_id: str) -> "Charges":
        """The charges of one run."""
        kept = [i for i, owner in enumerate(self.run_ids) if owner == run_id]
        return Charges((run_id,) * len(kept), tuple(self.keys[i] for i in kept), self.events)

    def epsilon(self, delta: float) -> tuple[float, float]:
        """(lower, upper) of all of them composed; (0, 0) for none, (0, infinity) where no accountant has a bound."""
        counts = Counter(self.keys)  # composition does not depend on order
        events = [accounting.SelfComposedDpEvent(self.events[key], count) for key, count in counts.items()]
        try:
            return accounting.epsilon(accounting.ComposedDpEvent(events), delta)
        except Unsupported:
            return 0.0, math.inf

    def mechanisms(self) -> list[Json]:
        """Each distinct event once: its facts as charged, which need not be what the plan said, and its count."""
        return [_mechanism(json.loads(key), count) for key, count in Counter(self.keys).items()]


def _mechanism(event: Json, count: int) -> Json:
    sampled = event["type"] == "PoissonSampledDpEvent"
    inner = event["event"] if sampled else event
    return {
        "steps": count,
        "sampling": "poisson" if sampled else "none",
        "sampling_rate": event["sampling_probability"] if sampled else 1,
        "noise_multiplier": inner["noise_multiplier"] if inner["type"] == "GaussianDpEvent" else None,
        "private": not _is_non_private(event),
        "event": event,
    }


def _is_non_private(event: Json) -> bool:
    kind = event["type"]
    if kind == "GaussianDpEvent":
        return bool(event["noise_multiplier"] == 0)
    if kind in ("NonPrivateDpEvent", "UnsupportedDpEvent"):
        return True
    if kind == "ComposedDpEvent":
        return any(_is_non_private(inner) for inner in event["events"])
    return "event" in event and _is_non_private(event["event"])
