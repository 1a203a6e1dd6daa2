"""Private data loading: the user's own ``DataLoader`` object, drawing its batches from the CSPRNG.

The loader keeps its dataset, workers, collate function and pinning; only the choice of records changes, and the size of
every batch that is handed out is told to the training run, because clipping must know which rows are one sample's. Streams
(``IterableDataset``) are read from the start as often as needed, and only the records that were drawn are kept.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data._utils.pin_memory import pin_memory

from hushgrad.errors import InvalidArgument, InvalidState, Unsupported

__all__ = [
    "STREAM_BUFFER",
    "CollateAllowingEmpty",
    "PoissonBatchSampler",
    "announce",
    "describe_loader",
    "in_turn",
    "make_loader_private",
    "rows_of",
    "steps_per_epoch",
    "tensors_in",
]


STREAM_BUFFER = 65_536  # records of an IterableDataset that one pass over it may keep


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


class CollateAllowingEmpty:
    """The user's collate function, which rarely expects a batch of nothing: that becomes one sample cut to no rows."""

    def __init__(self, collate: Callable[[list[Any]], Any], dataset: Any, batch_dim: int) -> None:
        self._collate = collate
        self._dataset = dataset
        self._batch_dim = batch_dim

    def __call__(self, samples: list[Any]) -> Any:
        if len(samples) > 0:
            return self._collate(samples)
        stream = isinstance(self._dataset, IterableDataset)
        return _cut(self._collate([next(iter(self._dataset)) if stream else self._dataset[0]]), self._batch_dim)


class _StreamedBatches:
    """Batches of drawn records out of a stream that can only be read from its start.

    The batches are drawn first. One pass over the stream then serves as many of them as hold ``STREAM_BUFFER`` records
    together, so a data set of up to that many records is read about once an epoch, and memory stays bounded.
    """

    def __init__(self, stream: Iterable[Any], batches: Iterable[list[int]], collate: Callable[[list[Any]], Any]) -> None:
        self._stream = stream
        self._batches = batches
        self._collate = collate

    def __iter__(self) -> Iterator[Any]:
        window: list[list[int]] = []
        for batch in self._batches:
            if window and sum(map(len, window)) + len(batch) > STREAM_BUFFER:
                yield from self._read(window)
                window = []
            window.append(batch)
        yield from self._read(window)

    def _read(self, window: list[list[int]]) -> Iterator[Any]:
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, batch in enumerate(window):
            for position, record in enumerate(batch):
                wanted.setdefault(record, []).append((place, position))
        read: list[list[Any]] = [[None] * len(batch) for batch in window]
        for number, record in enumerate(self._stream if wanted else ()):
            for place, position in wanted.pop(number, ()):
                read[place][position] = record
            if not wanted:
                break
        if wanted:
            raise InvalidState(
                "[loader] Expected the IterableDataset to give as many records each time as len() says, received fewer. Make __len__ and "
                "__iter__ agree."
            )
        for place in range(len(read)):
            samples, read[place] = read[place], []
            yield self._collate(samples)


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
        Unsupported: a sampler other than sequential or uniform shuffling, a custom batch sampler, drop_last, a stream
            of unknown length: what they would cost is unknown or infinite. Each message names the alternative.
        InvalidArgument: an empty data set, something that is no DataLoader.
    """
    if not isinstance(loader, DataLoader):
        raise InvalidArgument(
            f"[make_private] Expected data_loader to be a torch.utils.data.DataLoader, received {type(loader).__name__}. "
            "Wrap the data set in one."
        )
    if _is_private(loader):
        raise Unsupported(
            "[make_private] Expected a data loader that is not private yet, received one that is. Make a new DataLoader on the data set."
        )
    if loader.batch_size is None or loader.batch_sampler is None:
        raise Unsupported(
            "[make_private] Expected a DataLoader with batch_size, received one with automatic batching off or its own batch_sampler. "
            "Pass batch_size=; hushgrad draws the batches."
        )
    if loader.drop_last:
        raise Unsupported(
            "[make_private] Expected drop_last=False, received True: it would leave records out in a way that no account covers. Leave it "
            "out; every batch counts, also the smallest."
        )
    size = _stream_size(loader) if isinstance(loader.dataset, IterableDataset) else _map_size(loader)
    if size == 0:
        raise InvalidArgument("[make_private] Expected a data set with at least one record, received an empty one.")
    return size, min(int(loader.batch_size), size)


def _is_private(loader: DataLoader[Any]) -> bool:
    return isinstance(loader.__dict__.get("private_batches"), PoissonBatchSampler)


def _map_size(loader: DataLoader[Any]) -> int:
    if not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        raise Unsupported(
            f"[make_private] Expected shuffling or sequential order, received {type(loader.sampler).__name__}: it gives records unequal or "
            "unknown probabilities. Drop the sampler and use shuffle=True; to weigh records, weigh the loss per sample instead."
        )
    if isinstance(loader.sampler, RandomSampler) and (loader.sampler.replacement or loader.sampler._num_samples is not None):
        raise Unsupported(
            "[make_private] Expected RandomSampler without replacement over the whole data set, received replacement=True or num_samples=. "
            "Use shuffle=True."
        )
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        raise Unsupported(
            "[make_private] Expected a data set with __len__, received one of unknown length: the chance of a record to be in a batch would "
            "be unknown. Give the data set __len__."
        ) from None


def _stream_size(loader: DataLoader[Any]) -> int:
    if loader.num_workers > 0:
        raise Unsupported(
            f"[make_private] Expected num_workers=0 with an IterableDataset, received {loader.num_workers}: a stream that is split over workers "
            "no longer numbers its records. Use num_workers=0, or a data set with __getitem__ and __len__."
        )
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        raise Unsupported(
            "[make_private] Expected an IterableDataset with __len__, received a stream of unknown or infinite length: the chance of a record "
            "to be in a batch would be unknown. Give it __len__ and an __iter__ that starts over, or use a data set with __getitem__."
        ) from None


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
    state["private_batches"] = sampler
    state["collate_fn"] = CollateAllowingEmpty(loader.collate_fn, loader.dataset, batch_dim)
    if isinstance(loader.dataset, IterableDataset):
        _read_from_stream(loader, sampler)
    else:
        state["batch_sampler"] = sampler
    announce(loader, lambda: in_turn(sampler.sizes), on_batch)


def _read_from_stream(loader: DataLoader[Any], sampler: PoissonBatchSampler) -> None:
    base = type(loader)

    def iterate(self: DataLoader[Any]) -> Iterator[Any]:
        stream = cast(IterableDataset[Any], self.dataset)
        for batch in _StreamedBatches(stream, sampler, self.collate_fn):
            pinned = self.pin_memory and torch.accelerator.is_available()
            yield pin_memory(batch) if pinned else batch  # type: ignore[no-untyped-call]

    def length(self: DataLoader[Any]) -> int:
        return len(sampler)

    loader.__class__ = type(base.__name__, (base,), {"__iter__": iterate, "__len__": length, "__module__": base.__module__})


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
