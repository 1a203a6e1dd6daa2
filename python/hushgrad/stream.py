"""Batches of drawn records out of an ``IterableDataset``, which can only be read from its start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hushgrad.errors import InvalidState

__all__ = ["STREAM_BUFFER", "StreamedBatches"]

STREAM_BUFFER = 65_536  # records of an IterableDataset that one pass over it may keep


class StreamedBatches:
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
