"""What a loader draws, and which loaders are refused because nobody could say what theirs costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
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

from hushgrad.batch_sampler import PhysicalBatches, PrivateBatchSampler
from hushgrad.errors import InvalidArgument, Unsupported

__all__ = ["describe_loader", "is_sequential", "refuse_repeats", "steps_per_epoch"]


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
