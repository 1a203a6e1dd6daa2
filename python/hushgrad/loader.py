"""Private data loading: the user's own ``DataLoader`` object, drawing its batches from the CSPRNG.

The loader keeps its dataset, workers, collate function and pinning; only the choice of records changes, and the size of
every batch that is handed out is told to the training run, because clipping must know which rows are one sample's. Streams
(``IterableDataset``) are read from the start as often as needed, and only the records that were drawn are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils.pin_memory import pin_memory

from hushgrad.batch_sampler import DRAWN_AHEAD, Announced, DrawnBatch, PhysicalBatches, PrivateBatchSampler
from hushgrad.empty_batch import CollateAllowingEmpty
from hushgrad.errors import InvalidState
from hushgrad.loader_check import describe_loader, is_sequential, refuse_repeats, steps_per_epoch
from hushgrad.nested import tensors_in
from hushgrad.stream import STREAM_BUFFER, StreamedBatches

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
        for batch in StreamedBatches(stream, batches, self.collate_fn):
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
