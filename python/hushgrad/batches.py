"""Which batches a private run takes: the sampling arguments of ``make_private``, and what they ask of the loader."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from hushgrad import _torch, accounting
from hushgrad.errors import InvalidArgument
from hushgrad.loader_check import describe_loader, is_sequential, refuse_repeats

__all__ = ["SAMPLINGS", "Sampling", "UserIds", "unsampled_distance", "warn_of_cost"]

SAMPLINGS = ("poisson", "truncated_poisson", "fixed_size", "random_allocation", "shuffled", "sequential", "users")

UserIds = str | Callable[[Any], Hashable] | Iterable[Hashable]


@dataclass(frozen=True)
class Sampling:
    """The sampling arguments of ``make_private``."""

    sampling: str | None = None
    poisson_sampling: bool = True
    max_batch_size: int | None = None
    user_ids: UserIds | None = None
    max_records_per_user: int | None = None

    def __post_init__(self) -> None:
        if self.sampling is not None and self.sampling not in SAMPLINGS:
            raise InvalidArgument(f"[make_private] Expected sampling to be one of {SAMPLINGS}, received {self.sampling!r}.")
        if not self.poisson_sampling and self.sampling in ("poisson", "truncated_poisson", "users"):
            raise InvalidArgument(
                f"[make_private] Expected one law of batches, received poisson_sampling=False and sampling={self.sampling!r}. Drop one of the two."
            )
        self._refuse_unused("max_batch_size", self.max_batch_size, "truncated_poisson")
        self._refuse_unused("user_ids", self.user_ids, "users")
        self._refuse_unused("max_records_per_user", self.max_records_per_user, "users")

    def _refuse_unused(self, name: str, value: object, sampling: str) -> None:
        if value is not None and self.sampling != sampling:
            raise InvalidArgument(
                f"[make_private] Expected {name} with sampling={sampling!r} only, received it with {self.sampling or 'the default'!r}: an argument "
                "that nothing reads would look as if it held. Drop it, or name the sampling."
            )

    @property
    def by_users(self) -> bool:
        """Whether batches are of users, so that rows of one user are clipped together."""
        return self.sampling == "users"

    def law(self, loader: DataLoader[Any], processes: int = 1) -> dict[str, Any]:
        """The fields of a TrainingPlan. Raises what ``describe_loader`` raises, and InvalidArgument."""
        size, batch_size = describe_loader(loader, processes)
        if not self.by_users:
            refuse_repeats(loader.dataset)
        owners = self._owners(loader, size) if self.by_users else None
        population = size if owners is None else 1 + max(owners)
        batch_size = min(batch_size, population)
        return {
            "sampling": self._name(loader),
            "dataset_size": population,
            "batch_size": batch_size,
            "max_batch_size": self._limit(batch_size, population),
            "owners": owners,
            "max_records_per_user": self._contribution() if self.by_users else 0,
        }

    def _name(self, loader: DataLoader[Any]) -> str:
        if self.sampling is not None:
            return self.sampling
        if self.poisson_sampling:
            return "poisson"
        return "sequential" if is_sequential(loader) else "shuffled"

    def _limit(self, batch_size: int, population: int) -> int:
        if self.sampling != "truncated_poisson":
            return 0
        if self.max_batch_size is None:
            return min(population, batch_size + math.ceil(6 * math.sqrt(batch_size)))
        if isinstance(self.max_batch_size, bool) or not isinstance(self.max_batch_size, int) or self.max_batch_size < batch_size:
            raise InvalidArgument(
                f"[make_private] Expected max_batch_size to be an integer >= batch_size = {batch_size}, received {self.max_batch_size!r}: a smaller "
                "one would cut most batches."
            )
        return self.max_batch_size

    def _contribution(self) -> int:
        limit = self.max_records_per_user
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidArgument(
                f"[make_private] Expected max_records_per_user to be an integer >= 1 with sampling='users', received {limit!r}. It bounds how many "
                "records of one user are in a batch."
            )
        return limit

    def _owners(self, loader: DataLoader[Any], size: int) -> list[int]:
        if self.user_ids is None:
            raise InvalidArgument(
                "[make_private] Expected user_ids with sampling='users', received none. Pass the id of every record, the name of a column, or a "
                "function that takes a record to its user's id."
            )
        ids = list(_ids_of(loader.dataset, self.user_ids))
        if len(ids) != size:
            raise InvalidArgument(
                f"[make_private] Expected a user id for each of {size} records, received {len(ids)}. Keep ids and records in one order."
            )
        return _numbered(ids)


def _ids_of(dataset: Any, ids: UserIds) -> Iterable[Any]:
    if isinstance(ids, str):
        return _column(dataset, ids)
    if callable(ids):
        return map(ids, _records_of(dataset))
    return ids.tolist() if isinstance(ids, torch.Tensor) else ids


def _column(dataset: Any, name: str) -> Iterable[Any]:
    # Data sets of tables give a column by its name; of others, every record is asked.
    if name in (getattr(dataset, "column_names", None) or ()):
        column: Iterable[Any] = dataset[name]
        return column
    return (_field(record, name) for record in _records_of(dataset))


def _field(record: Any, name: str) -> Any:
    try:
        return record[name] if isinstance(record, dict) else getattr(record, name)
    except (KeyError, AttributeError):
        raise InvalidArgument(
            f"[make_private] Expected records with a field {name!r}, received one without. Pass user_ids as a sequence or a function of a record."
        ) from None


def _records_of(dataset: Any) -> Iterable[Any]:
    return (dataset[i] for i in range(len(dataset))) if hasattr(dataset, "__getitem__") else iter(dataset)


def _numbered(ids: Sequence[Any]) -> list[int]:
    numbers: dict[Any, int] = {}
    owners = []
    for one in ids:
        key = one.item() if isinstance(one, torch.Tensor) or hasattr(one, "dtype") else one
        try:
            known = key is not None and key == key  # NaN is nobody's id
            owners.append(numbers.setdefault(key, len(numbers)) if known else -1)
        except TypeError:
            known = False
        if not known:
            raise InvalidArgument(
                "[make_private] Expected an id (a number or a text) for every record, received a record without one. Give it an id of its own, or "
                "leave it out."
            )
    return owners


def unsampled_distance(loader: DataLoader[Any]) -> float:
    """How many clipping bounds a record moves what is charged at once without sampling: an epoch in random order by the root
    of five, a step of a fixed order by two (accounting/batch_law.h). Rounded up."""
    return 2.0 if is_sequential(loader) else math.sqrt(5) * (1 + 1e-15)


def warn_of_cost(plan: _torch.TrainingPlan, law: dict[str, Any], noise_multiplier: float, epochs: int, delta: float) -> None:
    """Says what epochs without amplification cost, beside Poisson batches with the same noise."""
    steps = epochs * plan.steps_per_epoch
    step = accounting.PoissonSampledDpEvent(law["batch_size"] / law["dataset_size"], accounting.GaussianDpEvent(noise_multiplier))
    own = accounting.epsilon(accounting.event_from_json(plan.charged_event_of(epochs)), delta)[1]
    poisson = accounting.epsilon(accounting.SelfComposedDpEvent(step, steps), delta)[1]
    advice = "Leave poisson_sampling=True." if plan.charged_once_an_epoch else "Leave poisson_sampling=True, or at least use shuffle=True."
    warnings.warn(
        f"[make_private] poisson_sampling=False: {epochs} epochs cost epsilon {own:.3g} at delta {delta:.2g}, where Poisson batches with the same "
        f"noise would cost {poisson:.3g}. {advice}",
        stacklevel=4,
    )
