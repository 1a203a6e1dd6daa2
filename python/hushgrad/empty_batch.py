"""Batches of nothing, for collate functions that do not expect one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import IterableDataset

__all__ = ["CollateAllowingEmpty"]


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
