"""Whether a collate function keeps records apart: mixup and CutMix are written as collate functions, and no graph shows them."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from hushgrad.errors import Unsupported
from hushgrad.nested import tensors_in

__all__ = ["check_collate"]

_TRIES = 4  # random boxes and weights may come out as nothing once

Collate = Callable[[list[Any]], Any]


def check_collate(loader: DataLoader[Any]) -> None:
    """Collates one record beside a second and, with the same random numbers, beside a third: in each tensor of real numbers, one row
    has to stay as it is (whichever place a sorting collate function gives it).

    Loads three records, and none for PyTorch's own collate function. Not seen: mixing with random numbers of its own, tensors whose shape
    follows the batch (padding), and what the loop itself does between loader and model.

    Raises:
        Unsupported: no row stayed.
    """
    collate = loader.collate_fn
    if collate is None or collate is default_collate:
        return
    try:
        records = _first_records(loader.dataset)
        mixes = len(records) == 3 and any(_mixes(collate, records, seed) for seed in range(_TRIES))
    except Exception:  # what the data set or the collate function cannot do with three records is said when it is used
        return
    if mixes:
        raise Unsupported(
            "[make_private] Expected a collate function that keeps records apart, received one whose every row moves with another record (mixup, "
            "CutMix, statistics of the batch): a sample's gradient would hold other people's data. Transform each record by itself."
        )


def _first_records(dataset: Any) -> list[Any]:
    if isinstance(dataset, IterableDataset):
        return list(itertools.islice(iter(dataset), 3))
    return [dataset[i] for i in range(min(3, len(dataset)))]


def _mixes(collate: Collate, records: list[Any], seed: int) -> bool:
    first, second, third = records
    one, again, other = (_collated(collate, pair, seed) for pair in ((first, second), (first, second), (first, third)))
    return any(_moved(*tensors) for tensors in zip(one, again, other))


def _collated(collate: Collate, pair: tuple[Any, Any], seed: int) -> list[torch.Tensor]:
    with _seeded(seed):
        return list(tensors_in(collate([copy.deepcopy(record) for record in pair])))


def _moved(one: torch.Tensor, again: torch.Tensor, other: torch.Tensor) -> bool:
    if not one.is_floating_point() or one.dim() < 2 or len(one) != 2 or not one.shape == again.shape == other.shape:
        return False
    if not torch.equal(one.nan_to_num(), again.nan_to_num()):
        return False  # random numbers that no seed reaches
    return not any(torch.equal(a.nan_to_num(), b.nan_to_num()) for a in one for b in other)


class _seeded:
    """Random numbers of torch, Python and NumPy from a seed, and as they were afterwards."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._states = torch.random.get_rng_state(), random.getstate()
        torch.manual_seed(self._seed)
        random.seed(self._seed)
        for numpy in _numpy():
            self._numpy_state = numpy.random.get_state()
            numpy.random.seed(self._seed)

    def __exit__(self, *error: object) -> None:
        torch.random.set_rng_state(self._states[0])
        random.setstate(self._states[1])
        for numpy in _numpy():
            numpy.random.set_state(self._numpy_state)


def _numpy() -> Iterator[Any]:
    try:
        import numpy
    except ImportError:
        return
    yield numpy
