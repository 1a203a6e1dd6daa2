"""``DPDataLoader``: Poisson batches from the system's secure generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import default_collate

from hushgrad.compat.opacus._missing import refuse
from hushgrad.compat.opacus.utils.uniform_sampler import UniformWithReplacementSampler, refuse_generator
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.empty_batch import CollateAllowingEmpty

__all__ = ["CollateWithMadeUpRow", "DPDataLoader", "adopt_loader"]


class CollateWithMadeUpRow:
    """A batch of nothing becomes one row of random zeros and ones, in the shape and type of a sample."""

    def __init__(self, collate: Callable[[list[Any]], Any], dataset: Any, batch_dim: int) -> None:
        self._collate = collate
        self._dataset = dataset

    def __call__(self, samples: list[Any]) -> Any:
        """The collated batch."""
        return self._collate(samples) if samples else _made_up(self._collate([self._dataset[0]]))


def _made_up(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return torch.randint(0, 2, batch.shape).to(batch.dtype)
    if isinstance(batch, dict):
        return type(batch)({key: _made_up(value) for key, value in batch.items()})
    if isinstance(batch, (list, tuple)):
        items = [_made_up(value) for value in batch]
        rebuild: Any = type(batch)
        return rebuild(*items) if hasattr(batch, "_fields") else rebuild(items)
    return type(batch)() if isinstance(batch, (str, bytes)) else batch


class DPDataLoader(DataLoader[Any]):
    """A DataLoader that draws every record independently with ``sample_rate``; batches vary and may have no rows.

    ``make_private`` returns one. Made by hand it charges nothing until it goes through ``make_private``, which turns this
    same object into the private loader. ``batch_size`` is the expected size of a batch.

    Args:
        dataset: map-style.
        sample_rate: in (0, 1]; 1 / len(loader) of the loader it stands for.
        collate_fn, batch_first: a batch of nothing is one sample, collated and cut to no rows along the batch dimension.
        drop_last: accepted; there is no last batch.
        rand_on_empty: a batch of nothing is one made-up row, for models that cannot take none. It counts for nothing.
        generator: must be None; batches come from the system's secure generator.
        distributed: must be False.
        kwargs: as for ``torch.utils.data.DataLoader``.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        sample_rate: float,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: object = None,
        distributed: bool = False,
        batch_first: bool = True,
        rand_on_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        refuse_generator(generator)
        if distributed:
            raise Unsupported(
                "[data_loader] Expected distributed=False, received True: training is in one process. Leave it out."
            )
        if isinstance(dataset, IterableDataset):
            raise Unsupported(
                "[data_loader] Expected a map-style data set, received an IterableDataset: records that cannot be addressed cannot be "
                "sampled with a known probability. Give the data set __getitem__ and __len__."
            )
        if not 0 < sample_rate <= 1:
            raise InvalidArgument(f"[data_loader] Expected sample_rate in (0, 1], received {sample_rate!r}.")
        size = len(dataset)
        kind = CollateWithMadeUpRow if rand_on_empty else CollateAllowingEmpty
        collate = kind(collate_fn or default_collate, dataset, 0 if batch_first else 1)
        super().__init__(dataset, batch_size=max(1, round(size * sample_rate)), collate_fn=collate, **kwargs)
        self.sample_rate = sample_rate
        self.distributed = distributed
        # DataLoader takes a batch sampler or a batch size; scripts and make_private read the size.
        self.__dict__["batch_sampler"] = UniformWithReplacementSampler(
            num_samples=size, sample_rate=sample_rate, steps=round(1 / sample_rate)
        )

    def __iter__(self) -> Any:
        # Lightning starts an iteration before it asks for the optimizer, where make_private is called: what an iteration
        # yields is decided at its first batch.
        private_at_start = "private_batches" in self.__dict__

        def batches() -> Iterator[Any]:
            made_private = "private_batches" in self.__dict__ and not private_at_start
            yield from iter(self) if made_private else super(DPDataLoader, self).__iter__()

        return batches()

    @classmethod
    def from_data_loader(
        cls,
        data_loader: DataLoader[Any],
        *,
        distributed: bool = False,
        generator: object = None,
        batch_first: bool = True,
        rand_on_empty: bool = False,
    ) -> DPDataLoader:
        """The same data, workers and collate function with Poisson batches, ``sample_rate`` being 1 / len(data_loader)."""
        loader = cls(
            data_loader.dataset,
            sample_rate=1 / len(data_loader),
            num_workers=data_loader.num_workers,
            collate_fn=data_loader.collate_fn,
            pin_memory=data_loader.pin_memory,
            timeout=data_loader.timeout,
            worker_init_fn=data_loader.worker_init_fn,
            multiprocessing_context=data_loader.multiprocessing_context,
            generator=generator,
            prefetch_factor=data_loader.prefetch_factor,
            persistent_workers=data_loader.persistent_workers,
            distributed=distributed,
            batch_first=batch_first,
            rand_on_empty=rand_on_empty,
        )
        if data_loader.batch_size is not None:
            loader.__dict__["batch_size"] = data_loader.batch_size  # exact, where n / len is rounded
        return loader


def adopt_loader(loader: DataLoader[Any], sample_rate: float, rand_on_empty: bool, batch_first: bool) -> None:
    """Makes a loader that ``make_private`` made private an instance of DPDataLoader, and still of its own class."""
    if rand_on_empty:
        # Inside of what the engine wraps around it: the size that is announced stays 0, so the row counts for nothing.
        loader.__dict__["collate_fn"] = CollateWithMadeUpRow(loader.collate_fn, loader.dataset, 0 if batch_first else 1)
    base: Any = type(loader)
    if not issubclass(base, DPDataLoader):
        loader.__class__ = type(base.__name__, (base, DPDataLoader), {"__module__": base.__module__})
    loader.__dict__["sample_rate"] = sample_rate
    loader.__dict__["distributed"] = False


if not TYPE_CHECKING:
    _EMPTY = "a private loader's batches may have no rows by themselves. Use the loader that make_private returns"
    __getattr__ = refuse(
        __name__,
        {
            "CollateFnWithEmpty": _EMPTY,
            "wrap_collate_with_empty": _EMPTY,
            "switch_generator": "batches come from the system's secure generator, which cannot be exchanged",
        },
    )
