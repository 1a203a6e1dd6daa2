"""The batches of an epoch, as the training run draws them, and their split into physical ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["DRAWN_AHEAD", "Announced", "DrawnBatch", "PhysicalBatches", "PrivateBatchSampler"]

_Item = TypeVar("_Item")

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
