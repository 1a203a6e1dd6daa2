"""Virtual batches: a large logical batch in several small physical ones, with the privacy of the large one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from hushgrad.engine import session_of
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.loader import announce, in_turn

__all__ = ["BatchMemoryManager"]


class _PhysicalBatches:
    """Splits logical batches. An epoch is drawn ahead, so that ``len`` is that of the epoch under way or else the next."""

    def __init__(self, logical: Iterable[list[int]], limit: int) -> None:
        self._logical = logical
        self._limit = limit
        self._epoch = self._draw()
        self._under_way = False
        self.announced: deque[tuple[int, bool, bool]] = deque()

    def _draw(self) -> list[list[list[int]]]:
        return [self._split(list(indices)) for indices in self._logical]

    def _split(self, indices: list[int]) -> list[list[int]]:
        pieces = max(1, -(-len(indices) // self._limit))
        even, extra = divmod(len(indices), pieces)
        sizes = [even + (i < extra) for i in range(pieces)]
        starts = [sum(sizes[:i]) for i in range(pieces)]
        return [indices[start : start + size] for start, size in zip(starts, sizes)]

    def __len__(self) -> int:
        return sum(len(pieces) for pieces in self._epoch)

    def __iter__(self) -> Iterator[list[int]]:
        if self._under_way:
            self._epoch = self._draw()
        epoch = self._epoch
        self._under_way = True
        announced = self.announced = deque()
        try:
            for pieces in epoch:
                for i, piece in enumerate(pieces):
                    announced.append((len(piece), i == 0, i == len(pieces) - 1))
                    yield piece
        finally:
            if self._epoch is epoch:
                self._epoch, self._under_way = self._draw(), False


class BatchMemoryManager:
    """Context manager that yields a loader of physical batches of at most ``max_physical_batch_size`` samples.

    The loop stays the same: ``optimizer.step()`` after a physical batch only clips and adds up, and the last one of a
    logical batch charges once, adds noise once and steps. The result is that of the whole batch. A loop that is left
    early releases nothing of the unfinished logical batch.

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
        self._loader = data_loader
        self._limit = max_physical_batch_size
        self._session = session_of(optimizer)

    def __enter__(self) -> DataLoader[Any]:
        source = self._loader
        batches = _PhysicalBatches(source.batch_sampler, self._limit)  # type: ignore[arg-type]
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
        session = self._session
        announce(
            loader,
            lambda: in_turn(batches.announced),
            lambda said: session.begin_batch(said[0], first=said[1], last=said[2]),
        )
        return loader

    def __exit__(self, *exc: object) -> None:
        self._session.training.discard(True)
