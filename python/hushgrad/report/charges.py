"""The charges of a dataset in order, and what they compose to."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
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

    @cached_property
    def _by_run(self) -> dict[str, list[str]]:
        kept: dict[str, list[str]] = {}
        for run_id, key in zip(self.run_ids, self.keys, strict=True):
            kept.setdefault(run_id, []).append(key)
        return kept

    @cached_property
    def starts(self) -> dict[str, int]:
        """Of each run that charged: how many charges came before its first, in order."""
        found: dict[str, int] = {}
        for index, run_id in enumerate(self.run_ids):
            found.setdefault(run_id, index)
        return found

    def of_run(self, run_id: str) -> "Charges":
        """The charges of one run."""
        kept = self._by_run.get(run_id, [])
        return Charges((run_id,) * len(kept), tuple(kept), self.events)

    def of_runs(self, run_ids: Iterable[str]) -> "Charges":
        """The charges of several runs, run after run: composition does not depend on the order."""
        parts = [self.of_run(run_id) for run_id in run_ids]
        return Charges(
            tuple(run_id for part in parts for run_id in part.run_ids),
            tuple(key for part in parts for key in part.keys),
            self.events,
        )

    @cached_property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """Each distinct event and how often it was charged; composition does not depend on their order."""
        return tuple(sorted(Counter(self.keys).items()))

    def epsilon(self, delta: float) -> tuple[float, float]:
        """(lower, upper) of all of them composed; (0, 0) for none, (0, infinity) where no accountant has a bound."""
        return _epsilon(self.counts, delta)

    def mechanisms(self) -> list[Json]:
        """Each distinct event once: its facts as charged, which need not be what the plan said, and its count."""
        return [_mechanism(json.loads(key), count) for key, count in Counter(self.keys).items()]


def composed(counts: tuple[tuple[str, int], ...]) -> accounting.DpEvent:
    """Distinct events, by their canonical JSON, and their counts as one event."""
    return accounting.ComposedDpEvent(
        accounting.SelfComposedDpEvent(accounting.event_from_json(key), count) for key, count in counts
    )


@lru_cache(maxsize=4096)  # runs that repeat each other are asked about once
def _epsilon(counts: tuple[tuple[str, int], ...], delta: float) -> tuple[float, float]:
    try:
        return accounting.epsilon(composed(counts), delta)
    except Unsupported:
        return 0.0, math.inf


_SAMPLING = {
    "PoissonSampledDpEvent": "poisson",
    "TruncatedSubsampledGaussianDpEvent": "truncated_poisson",
    "SampledWithoutReplacementDpEvent": "fixed_size",
    "ShuffledEpochDpEvent": "shuffled_epoch",
    "BallsInBinsDpEvent": "random_allocation",
    "MatrixFactorizationDpEvent": "matrix_factorization",
    "SingleEpochTreeAggregationDpEvent": "tree_aggregation",
}


def _mechanism(event: Json, count: int) -> Json:
    outer = _without_wrapping(event)
    inner = _without_wrapping(outer["event"]) if isinstance(outer.get("event"), dict) else outer
    rate = outer.get("sampling_probability")
    noise = inner.get("noise_multiplier")
    return {
        "steps": count,
        "sampling": _SAMPLING.get(outer["type"], "none"),
        "sampling_rate": 1 if rate is None else rate,
        "noise_multiplier": noise if isinstance(noise, int | float) else None,
        "private": not _is_non_private(event),
        "event": event,
    }


def _without_wrapping(event: Json) -> Json:
    """Without what only says how exactly a release was made, or for whom: the release itself."""
    while event["type"] in ("FinitePrecisionDpEvent", "GroupDpEvent"):
        event = event["event"]
    return event


def _is_non_private(event: Json) -> bool:
    kind = event["type"]
    if kind == "GaussianDpEvent":
        return bool(event["noise_multiplier"] == 0)
    if kind in ("NonPrivateDpEvent", "UnsupportedDpEvent"):
        return True
    if kind == "ComposedDpEvent":
        return any(_is_non_private(inner) for inner in event["events"])
    return "event" in event and _is_non_private(event["event"])
