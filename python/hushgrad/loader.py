"""Private data loading: the user's own ``DataLoader`` object, drawing its batches from the CSPRNG.

The loader keeps its dataset, workers, collate function and pinning; only the choice of records changes, and the size of
every batch that is handed out is told to the training run, because clipping must know which rows are one sample's. Streams
(``IterableDataset``) are read from the start as often as needed, and only the records that were drawn are kept.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)
from torch.utils.data._utils.pin_memory import pin_memory

from hushgrad.errors import InvalidArgument, InvalidState, Unsupported

__all__ = [
    "DRAWN_AHEAD",
    "STREAM_BUFFER",
    "Announced",
    "CollateAllowingEmpty",
    "DrawnBatch",
    "PhysicalBatches",
    "PrivateBatchSampler",
    "announce",
    "describe_loader",
    "is_sequential",
    "make_loader_private",
    "refuse_repeats",
    "steps_per_epoch",
    "tensors_in",
]


_Item = TypeVar("_Item")

STREAM_BUFFER = 65_536  # records of an IterableDataset that one pass over it may keep
DRAWN_AHEAD = 4_194_304  # records of an epoch whose numbers are drawn before it begins, so that its physical batches can be counted


class DrawnBatch(list[int]):
    """Records of one batch, the epoch it belongs to (0 where steps are charged one by one), and, of batches of users, how many
    of the records each user has."""

    def __init__(self, records: Iterable[int], epoch: int, sizes: Sequence[int] | None = None) -> None:
        super().__init__(records)
        self.epoch = epoch
        self.sizes = sizes

    def __reduce__(self) -> Any:
        return DrawnBatch, (list(self), self.epoch, self.sizes)


class Announced(NamedTuple):
    """What the training run is told of a batch before it is handed out."""

    size: int  # samples, or users
    epoch: int
    first: bool = True  # of the physical batches of its logical batch
    last: bool = True
    rows: int | None = None  # records, where that is not the size
    iteration: object = None  # the same for all batches of one iteration over the loader


class PrivateBatchSampler:
    """Yields the batches of an epoch as the training run draws them.

    Poisson batches vary in size and may be empty. ``len()`` is exact. ``announced`` holds what is to be said of the batches
    that the latest iteration has drawn and the loader has not handed out yet (workers run ahead); every iteration has its own.
    draw gives the epoch, the records, and the users' numbers of records (none where batches are of records). records: that an epoch
    is expected to draw.
    """

    def __init__(
        self, begin_epoch: Callable[[], None], draw: Callable[[], tuple[int, list[int], list[int] | None]], steps: int, records: int
    ) -> None:
        self._begin_epoch = begin_epoch
        self._draw = draw
        self._steps = steps
        self.records = records
        self.announced: deque[Announced] = deque()

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[DrawnBatch]:
        announced = self.announced = deque()
        self._begin_epoch()
        for _ in range(self._steps):
            epoch, records, sizes = self._draw()
            announced.append(Announced(len(records), epoch))
            yield DrawnBatch(records, epoch, sizes)


class PhysicalBatches:
    """Splits logical batches. An epoch is drawn ahead, so that ``len`` is that of the epoch under way or else the next. Of an epoch
    of more than ``DRAWN_AHEAD`` records, batches are drawn one by one as everywhere else, and ``len`` is a TypeError: memory
    follows the batch, not the data set.

    limit: largest number of records of a piece; None: no limit. Batches of users are split between users only, into pieces whose
    users have equally many records (in any other piece it would be unknown which rows are whose), one user at least.
    """

    def __init__(self, logical: PrivateBatchSampler, limit: int | None) -> None:
        self.logical = logical
        self.limit = limit
        self._is_counted = logical.records <= DRAWN_AHEAD
        self._epoch = self._draw() if self._is_counted else []
        self._under_way = False
        self.announced: deque[Announced] = deque()

    def _draw(self) -> list[list[DrawnBatch]]:
        return [self._split(batch) for batch in self.logical]

    def _split(self, batch: DrawnBatch) -> list[DrawnBatch]:
        if batch.sizes is None:
            return [DrawnBatch(piece, batch.epoch) for piece in _evenly(batch, self.limit)]
        pieces = []
        for size, users in _by_size(batch, batch.sizes):
            limit = None if self.limit is None else max(1, self.limit // size)
            for piece in _evenly(users, limit):
                pieces.append(DrawnBatch([record for user in piece for record in user], batch.epoch, [size] * len(piece)))
        return pieces or [DrawnBatch([], batch.epoch, [])]

    def __len__(self) -> int:
        if not self._is_counted:
            raise TypeError(
                f"[loader] Expected an epoch of at most {DRAWN_AHEAD} records to count its physical batches ahead, received a larger one. Count "
                "them as they come; len() of the loader that make_private returned is the number of steps."
            )
        return sum(len(pieces) for pieces in self._epoch)

    def __iter__(self) -> Iterator[DrawnBatch]:
        if not self._is_counted:
            self.announced = deque()
            yield from self._hand_out(map(self._split, self.logical), self.announced)
            return
        if self._under_way:
            self._epoch = self._draw()
        epoch = self._epoch
        self._under_way = True
        announced = self.announced = deque()
        try:
            yield from self._hand_out(epoch, announced)
        finally:
            if self._epoch is epoch:
                self._epoch, self._under_way = self._draw(), False

    @staticmethod
    def _hand_out(epoch: Iterable[list[DrawnBatch]], announced: deque[Announced]) -> Iterator[DrawnBatch]:
        for pieces in epoch:
            for i, piece in enumerate(pieces):
                units = len(piece) if piece.sizes is None else len(piece.sizes)
                announced.append(Announced(units, piece.epoch, i == 0, i == len(pieces) - 1, len(piece)))
                yield piece


def _evenly(items: Sequence[_Item], limit: int | None) -> list[Sequence[_Item]]:
    """Pieces of at most ``limit`` items, as alike in size as can be; one empty piece of nothing."""
    pieces = 1 if limit is None else max(1, -(-len(items) // limit))
    even, extra = divmod(len(items), pieces)
    sizes = [even + (i < extra) for i in range(pieces)]
    starts = [sum(sizes[:i]) for i in range(pieces)]
    return [items[start : start + size] for start, size in zip(starts, sizes)]


def _by_size(records: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, list[Sequence[int]]]]:
    """The records of each user, by how many the user has."""
    users: dict[int, list[Sequence[int]]] = {}
    at = 0
    for size in sizes:
        users.setdefault(size, []).append(records[at : at + size])
        at += size
    return sorted(users.items())


class CollateAllowingEmpty:
    """The user's collate function, which rarely expects a batch of nothing: that becomes one sample cut to no rows.

    What grows when the sample comes twice follows the batch: dimensions of tensors and arrays, and lists. It shrinks by as much, and
    everything else stays, whatever the collate function makes. What has no empty form (packed sequences, objects of other
    classes) stays whole: its rows count for nothing, since the batch is announced as empty.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], dataset: Any, batch_dim: int) -> None:
        self._collate = collate
        self._dataset = dataset
        self._batch_dim = batch_dim

    def __call__(self, samples: list[Any]) -> Any:
        if len(samples) > 0:
            return self._collate(samples)
        stream = isinstance(self._dataset, IterableDataset)
        sample = next(iter(self._dataset)) if stream else self._dataset[0]
        again = copy.deepcopy(sample)  # before the first call, which may change the sample
        one = self._collate([sample])
        try:
            return _without_rows(one, self._collate([again, copy.deepcopy(again)]))
        except Exception:  # no second copy for this collate function, or a class of its own kind: the usual dimension, then
            return _cut(one, self._batch_dim)


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


def _without_rows(one: Any, two: Any) -> Any:
    """A batch of one sample without it, seen from what a second one adds to it."""
    if isinstance(one, PackedSequence):
        return one
    if isinstance(one, torch.Tensor):
        for dim, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)):
            if b > a:
                one = one.index_select(dim, torch.arange(_left(a, b), device=one.device))
        return one
    if hasattr(one, "shape") and hasattr(one, "ndim"):  # an array
        kept = tuple(slice(_left(a, b)) for a, b in zip(one.shape, two.shape, strict=True))
        return one[kept] if kept else one
    if isinstance(one, Mapping):
        return _with_items(one, {key: _without_rows(value, two[key]) for key, value in one.items()})
    if isinstance(one, (list, tuple)):
        if len(one) != len(two):
            return one[: _left(len(one), len(two))]
        items = [_without_rows(a, b) for a, b in zip(one, two)]
        rebuild: Any = type(one)
        return rebuild(*items) if hasattr(one, "_fields") else rebuild(items)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [field.name for field in dataclasses.fields(one) if field.init]
        return dataclasses.replace(one, **{name: _without_rows(getattr(one, name), getattr(two, name)) for name in names})
    return one


def _left(one: int, two: int) -> int:
    """The length of nothing, from those of one sample and of two."""
    return max(0, 2 * one - two) if two > one else one


def _with_items(like: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(like) is dict:
        return items
    changed: Any = copy.copy(like)  # keeps what a subclass holds beside its items (a default, an encoding)
    for key, value in items.items():
        changed[key] = value
    return changed


def _cut(batch: Any, batch_dim: int) -> Any:
    if isinstance(batch, torch.Tensor):
        if batch.dim() == 0:
            return batch
        return batch.index_select(batch_dim if batch.dim() > batch_dim else 0, torch.arange(0, device=batch.device))
    if isinstance(batch, PackedSequence):
        return batch
    if isinstance(batch, Mapping):
        return _with_items(batch, {key: _cut(value, batch_dim) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)):
        # default_collate turns strings into a list of one string: no sample, no string.
        strings = len(batch) == 1 and isinstance(batch[0], (str, bytes))
        items = [] if strings else [_cut(value, batch_dim) for value in batch]
        rebuild: Any = type(batch)
        return rebuild(*items) if hasattr(batch, "_fields") else rebuild(items)
    return batch


def describe_loader(loader: DataLoader[Any], processes: int = 1) -> tuple[int, int]:
    """``(dataset_size, batch_size)`` of a loader that can be made private, over all ``processes`` together.

    With a DistributedSampler the loader's batch_size is that of one process, as in ordinary training; without, that of all.

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
    size = _stream_size(loader) if isinstance(loader.dataset, IterableDataset) else _map_size(loader, processes)
    if size == 0:
        raise InvalidArgument("[make_private] Expected a data set with at least one record, received an empty one.")
    each = processes if isinstance(loader.sampler, DistributedSampler) else 1
    return size, min(int(loader.batch_size) * each, size)


def _is_private(loader: DataLoader[Any]) -> bool:
    return isinstance(loader.__dict__.get("private_batches"), (PrivateBatchSampler, PhysicalBatches))


def is_sequential(loader: DataLoader[Any]) -> bool:
    """Whether the loader goes through its data set in the given order."""
    sampler = loader.sampler
    in_order = isinstance(sampler, SequentialSampler) or (isinstance(sampler, DistributedSampler) and not sampler.shuffle)
    return isinstance(loader.dataset, IterableDataset) or in_order


def _map_size(loader: DataLoader[Any], processes: int) -> int:
    if isinstance(loader.sampler, DistributedSampler):
        _check_distributed(loader.sampler, loader.dataset, processes)
    elif isinstance(loader.sampler, SubsetRandomSampler):
        raise Unsupported(
            "[make_private] Expected shuffling or sequential order, received SubsetRandomSampler, which leaves records out. Give the loader "
            "torch.utils.data.Subset(data_set, indices) with shuffle=True: the part is then the data set that is protected."
        )
    elif not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        raise Unsupported(
            f"[make_private] Expected shuffling or sequential order, received {type(loader.sampler).__name__}: it gives records unequal or "
            "unknown probabilities. Drop the sampler and use shuffle=True; to weigh records, weigh the loss per sample instead."
        )
    if isinstance(loader.sampler, RandomSampler) and (loader.sampler.replacement or loader.sampler._num_samples is not None):
        raise Unsupported(
            "[make_private] Expected RandomSampler without replacement over the whole data set, received replacement=True or num_samples=. "
            "Use shuffle=True."
        )
    size = _length_of(loader.dataset)
    if size is None:
        raise Unsupported(
            "[make_private] Expected a data set with __len__, received one of unknown length: the chance of a record to be in a batch would "
            "be unknown. Give the data set __len__."
        )
    return size


def _check_distributed(sampler: DistributedSampler[Any], dataset: Any, processes: int) -> None:
    # What it would choose is not used: it pads the data set with records that come twice. It only says how batch_size is meant.
    if sampler.num_replicas != processes:
        raise Unsupported(
            f"[make_private] Expected a DistributedSampler over the {processes} processes that train together, received one over "
            f"{sampler.num_replicas}. Wrap the model in DistributedDataParallel in every process, or drop the sampler."
        )
    if sampler.dataset is not dataset:
        raise Unsupported(
            "[make_private] Expected the DistributedSampler of the loader's own data set, received one of another. Build it from the same data set."
        )


def _stream_size(loader: DataLoader[Any]) -> int:
    if loader.num_workers > 0:
        raise Unsupported(
            f"[make_private] Expected num_workers=0 with an IterableDataset, received {loader.num_workers}: a stream that is split over workers "
            "no longer numbers its records. Use num_workers=0, or a data set with __getitem__ and __len__."
        )
    size = _length_of(loader.dataset)
    if size is None:
        raise Unsupported(
            "[make_private] Expected an IterableDataset with __len__, received a stream of unknown or infinite length: the chance of a record "
            "to be in a batch would be unknown. Give it __len__ and an __iter__ that starts over, or use a data set with __getitem__."
        )
    return size


def _length_of(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError, OverflowError):  # PyTorch's own data sets raise the second
        return None


def refuse_repeats(dataset: Any) -> None:
    """Refuses subsets and concatenations that hold one record several times: each would be protected as if it were somebody else.

    Raises:
        Unsupported: indices that repeat in a Subset, data sets that repeat in a ConcatDataset, or subsets of one that overlap.
    """
    parts: dict[int, list[Any]] = {}
    for source, indices in _parts_of(dataset):
        parts.setdefault(id(source), []).append(range(len(source)) if indices is None else indices)
    for indices in parts.values():
        if len(indices) == 1 and isinstance(indices[0], range):
            continue
        numbers = torch.cat([torch.as_tensor(some if isinstance(some, torch.Tensor) else list(some), dtype=torch.long) for some in indices])
        if torch.unique(numbers).numel() < numbers.numel():
            raise Unsupported(
                "[make_private] Expected every record of the data set once, received a Subset or ConcatDataset that holds one several times: it "
                'would weigh more than is charged. Leave the repeats out; to weigh records, weigh the loss per sample. With sampling="users" '
                "records of one user may repeat."
            )


def _parts_of(dataset: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _parts_of(part)
    elif isinstance(dataset, Subset):
        size = len(dataset.dataset)  # type: ignore[arg-type]
        indices = dataset.indices
        if not isinstance(indices, range):
            indices = [i + size if i < 0 else i for i in map(int, indices)]
        inner = dataset.dataset
        if isinstance(inner, Subset) and not isinstance(inner.dataset, (Subset, ConcatDataset)):
            yield inner.dataset, [inner.indices[i] for i in indices]
        else:
            refuse_repeats(inner)
            yield inner, indices
    else:
        yield dataset, None


def steps_per_epoch(dataset_size: int, batch_size: int) -> int:
    """ceil(n / b), in integers: no step is lost to rounding."""
    return -(-dataset_size // batch_size)


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
    loader: DataLoader[Any], batches: PrivateBatchSampler | PhysicalBatches, on_batch: Callable[[Announced], None], batch_dim: int
) -> None:
    """Turns ``loader`` itself into one that draws ``batches`` and calls ``on_batch`` before it hands one out."""
    # DataLoader forbids replacing its sampler after construction to protect against half-changed loaders; this change is
    # whole: batch sampler and collate function go together.
    state = loader.__dict__
    state["private_batches"] = batches
    state["_iterator"] = None  # workers that stayed from an earlier iteration draw other batches
    state["in_order"] = True  # batches are announced in the order in which they are drawn
    state["collate_fn"] = CollateAllowingEmpty(loader.collate_fn, loader.dataset, batch_dim)
    if isinstance(loader.dataset, IterableDataset):
        _read_from_stream(loader, batches)
    else:
        state["batch_sampler"] = batches
    announce(loader, lambda: batches.announced, on_batch)


def _read_from_stream(loader: DataLoader[Any], batches: PrivateBatchSampler | PhysicalBatches) -> None:
    base = type(loader)

    def iterate(self: DataLoader[Any]) -> Iterator[Any]:
        stream = cast(IterableDataset[Any], self.dataset)
        for batch in _StreamedBatches(stream, batches, self.collate_fn):
            pinned = self.pin_memory and torch.accelerator.is_available()
            yield pin_memory(batch) if pinned else batch  # type: ignore[no-untyped-call]

    def length(self: DataLoader[Any]) -> int:
        return len(batches)

    loader.__class__ = type(base.__name__, (base,), {"__iter__": iterate, "__len__": length, "__module__": base.__module__})


def announce(
    loader: DataLoader[Any], begin: Callable[[], deque[Announced]], on_batch: Callable[[Announced], None]
) -> None:
    """Makes ``loader`` call ``on_batch`` with the next of ``begin()`` before it hands a batch out.

    begin is called at the first batch of each iteration, since several may be under way. Iterating is looked up on the
    type, so the loader gets a subclass of its own type; it stays the same object and an instance of everything it was.
    """
    base = type(loader)
    latest: list[object] = [None]  # of workers that stay: they serve one iteration, the latest

    def iterate(self: DataLoader[Any]) -> Iterator[Any]:
        iteration = latest[0] = object()
        announced: deque[Announced] | None = None
        batches = base.__iter__(self)
        while True:
            if self.persistent_workers and latest[0] is not iteration:
                raise InvalidState(
                    "[loader] Expected one iteration at a time with persistent_workers=True, received a second one before the first was over: the "
                    "workers that stay serve the latest only. Finish one first, or use persistent_workers=False."
                )
            try:
                batch = next(batches)
            except StopIteration:
                return
            announced = begin() if announced is None else announced
            if not announced:
                raise InvalidState(
                    "[loader] Expected batches that the training run drew, received another one. A subclass of DataLoader has to hand out each "
                    "batch of its batch_sampler once."
                )
            on_batch(announced.popleft()._replace(iteration=iteration))
            yield batch

    loader.__class__ = type(base.__name__, (base,), {"__iter__": iterate, "__module__": base.__module__})
