"""Private data loading: the user's own ``DataLoader`` object, drawing Poisson batches from the CSPRNG.

The loader keeps its dataset, workers, collate function and pinning; only the choice of indices changes, and the size of
every batch that is handed out is told to the training run, because clipping must know which rows are one sample's.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from hushgrad.errors import InvalidArgument, Unsupported

__all__ = [
    "PoissonBatchSampler",
    "announce",
    "describe_loader",
    "in_turn",
    "make_loader_private",
    "rows_of",
    "steps_per_epoch",
    "tensors_in",
]


class PoissonBatchSampler:
    """Yields the indices of ``steps`` batches an epoch; every record is in each with the plan's sampling rate.

    Batches vary in size and may be empty. ``len()`` is exact. ``sizes`` holds the sizes of the batches that the latest
    iteration has drawn and the loader has not handed out yet (workers run ahead); every iteration has its own.
    """

    def __init__(self, draw: Callable[[], list[int]], steps: int) -> None:
        self._draw = draw
        self._steps = steps
        self.sizes: deque[int] = deque()

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        sizes = self.sizes = deque()
        for _ in range(self._steps):
            indices = self._draw()
            sizes.append(len(indices))
            yield indices


class _CollateAllowingEmpty:
    """The user's collate function, which rarely expects a batch of nothing: that becomes one sample cut to no rows."""

    def __init__(self, collate: Callable[[list[Any]], Any], dataset: Any, batch_dim: int) -> None:
        self._collate = collate
        self._dataset = dataset
        self._batch_dim = batch_dim

    def __call__(self, samples: list[Any]) -> Any:
        if len(samples) > 0:
            return self._collate(samples)
        return _cut(self._collate([self._dataset[0]]), self._batch_dim)


def _cut(batch: Any, batch_dim: int) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch if batch.dim() == 0 else batch.narrow(batch_dim if batch.dim() > batch_dim else 0, 0, 0)
    if isinstance(batch, dict):
        return type(batch)({key: _cut(value, batch_dim) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)):
        # default_collate turns strings into a list of one string: no sample, no string.
        strings = len(batch) == 1 and isinstance(batch[0], (str, bytes))
        items = [] if strings else [_cut(value, batch_dim) for value in batch]
        rebuild: Any = type(batch)
        return rebuild(*items) if hasattr(batch, "_fields") else rebuild(items)
    return batch


def describe_loader(loader: DataLoader[Any]) -> tuple[int, int]:
    """``(dataset_size, batch_size)`` of a loader that can be made private.

    Raises:
        Unsupported: iterable or empty data sets, a sampler other than sequential or uniform shuffling, a custom batch
            sampler: what they would cost is unknown or infinite.
    """
    if not isinstance(loader, DataLoader):
        raise InvalidArgument(
            f"[make_private] Expected data_loader to be a torch.utils.data.DataLoader, received {type(loader).__name__}. "
            "Wrap the data set in one."
        )
    if isinstance(loader.dataset, IterableDataset):
        raise Unsupported(
            "[make_private] Expected a map-style data set, received an IterableDataset: records that cannot be addressed cannot be "
            "sampled with a known probability. Give the data set __getitem__ and __len__."
        )
    if isinstance(loader.batch_sampler, PoissonBatchSampler):
        raise Unsupported(
            "[make_private] Expected a data loader that is not private yet, received one that is. Make a new DataLoader on the data set."
        )
    if loader.batch_size is None or loader.batch_sampler is None:
        raise Unsupported(
            "[make_private] Expected a DataLoader with batch_size, received one with automatic batching off or its own batch_sampler. "
            "Pass batch_size=; hushgrad draws the batches."
        )
    if not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        raise Unsupported(
            f"[make_private] Expected shuffling or sequential order, received {type(loader.sampler).__name__}: it gives records unequal or "
            "unknown probabilities. Drop the sampler; weigh the loss per sample instead."
        )
    if isinstance(loader.sampler, RandomSampler) and (loader.sampler.replacement or loader.sampler._num_samples is not None):
        raise Unsupported(
            "[make_private] Expected RandomSampler without replacement over the whole data set, received replacement=True or num_samples=. "
            "Use shuffle=True."
        )
    size = len(loader.dataset)  # type: ignore[arg-type]
    if size == 0:
        raise InvalidArgument("[make_private] Expected a data set with at least one record, received an empty one.")
    return size, min(int(loader.batch_size), size)


def steps_per_epoch(dataset_size: int, batch_size: int) -> int:
    """ceil(n / b), in integers: no step is lost to rounding."""
    return -(-dataset_size // batch_size)


def rows_of(batch: Any, batch_dim: int) -> int:
    """Number of samples in a collated batch: the size of its first tensor along the batch dimension."""
    for tensor in tensors_in(batch):
        if tensor.dim() > 0:
            return tensor.size(batch_dim if tensor.dim() > batch_dim else 0)
    raise Unsupported(
        "[loader] Expected a batch that holds tensors, received none. Let the collate function return tensors with one row a sample."
    )


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor inside nested dictionaries, sequences and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def make_loader_private(
    loader: DataLoader[Any], sampler: PoissonBatchSampler, on_batch: Callable[[int], None], batch_dim: int
) -> None:
    """Turns ``loader`` itself into one that draws from ``sampler`` and calls ``on_batch(size)`` before each batch."""
    # DataLoader forbids replacing its sampler after construction to protect against half-changed loaders; this change is
    # whole: batch sampler and collate function go together.
    state = loader.__dict__
    state["batch_sampler"] = sampler
    state["drop_last"] = False
    state["collate_fn"] = _CollateAllowingEmpty(loader.collate_fn, loader.dataset, batch_dim)
    announce(loader, lambda: in_turn(sampler.sizes), on_batch)


def announce(
    loader: DataLoader[Any], begin: Callable[[], Callable[[Any], Any]], on_batch: Callable[[Any], None]
) -> None:
    """Makes ``loader`` call ``on_batch(said(batch))`` before it hands a batch out, where ``said = begin()``.

    begin is called at the first batch of each iteration, since several may be under way. Iterating is looked up on the
    type, so the loader gets a subclass of its own type; it stays the same object and an instance of everything it was.
    """
    base = type(loader)

    def iterate(self: DataLoader[Any]) -> Iterator[Any]:
        said: Callable[[Any], Any] | None = None
        for batch in base.__iter__(self):
            said = said or begin()
            on_batch(said(batch))
            yield batch

    loader.__class__ = type(base.__name__, (base,), {"__iter__": iterate, "__module__": base.__module__})


def in_turn(queue: deque[Any]) -> Callable[[Any], Any]:
    """For ``announce``: what stands at the left of the queue, one a batch."""
    return lambda batch: queue.popleft()
