"""Virtual batches: a large logical batch in several small physical ones, with the privacy of the large one."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from hushgrad.batch_sampler import PhysicalBatches, PrivateBatchSampler
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.loader import announce
from hushgrad.session import session_of

__all__ = ["BatchMemoryManager"]


class BatchMemoryManager:
    """Context manager that yields a loader of physical batches of at most ``max_physical_batch_size`` samples.

    The loop stays the same: ``optimizer.step()`` after a physical batch only clips and adds up, and the last one of a
    logical batch charges once, adds noise once and steps. The result is that of the whole batch. A loop that is left
    early releases nothing of the unfinished logical batch. Batches of users are split between users only, so one user's
    records may pass the limit.

    Args:
        data_loader: the loader that ``make_private`` returned.
        max_physical_batch_size: >= 1.
        optimizer: the optimizer that ``make_private`` returned.
    """

    def __init__(self, *, data_loader: DataLoader[Any], max_physical_batch_size: int, optimizer: Optimizer) -> None:
        if isinstance(max_physical_batch_size, bool) or not isinstance(max_physical_batch_size, int) or max_physical_batch_size < 1:
            raise InvalidArgument(
                f"[BatchMemoryManager] Expected max_physical_batch_size to be an integer >= 1, received {max_physical_batch_size!r}."
            )
        if isinstance(data_loader.dataset, IterableDataset):
            raise Unsupported(
                "[BatchMemoryManager] Expected a data set with __getitem__ and __len__, received an IterableDataset. Use a smaller batch_size, or "
                "give the data set __getitem__."
            )
        batches = data_loader.batch_sampler
        if not isinstance(batches, (PrivateBatchSampler, PhysicalBatches)):
            raise InvalidArgument(
                "[BatchMemoryManager] Expected the loader that make_private returned, received another one. Pass the private loader."
            )
        self._batches = batches.logical if isinstance(batches, PhysicalBatches) else batches
        self._loader = data_loader
        own = batches.limit if isinstance(batches, PhysicalBatches) else None  # 1 under sensitivity="certified"
        self._limit = min(max_physical_batch_size, own or max_physical_batch_size)
        self._session = session_of(optimizer)

    def __enter__(self) -> DataLoader[Any]:
        source = self._loader
        batches = PhysicalBatches(self._batches, self._limit)
        loader: DataLoader[Any] = DataLoader(
            source.dataset,
            batch_sampler=batches,
            num_workers=source.num_workers,
            collate_fn=source.collate_fn,
            pin_memory=source.pin_memory,
            timeout=source.timeout,
            worker_init_fn=source.worker_init_fn,
            multiprocessing_context=source.multiprocessing_context,
            generator=source.generator,
            prefetch_factor=source.prefetch_factor,
            persistent_workers=source.persistent_workers,
        )
        announce(loader, lambda: batches.announced, self._session.begin_batch)
        return loader

    def __exit__(self, *exc: object) -> None:
        self._session.training.discard(True)
