"""Poisson batches of indices from the system's secure generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch.utils.data import Sampler

from hushgrad import _core
from hushgrad.compat.opacus._missing import refuse
from hushgrad.errors import InvalidArgument

__all__ = ["UniformWithReplacementSampler"]


class UniformWithReplacementSampler(Sampler[list[int]]):
    """``steps`` batches an iteration; every index is in each independently with ``sample_rate``. Batches may be empty.

    By itself it charges nothing: hand the loader to ``make_private``.

    Args:
        num_samples: records, >= 1.
        sample_rate: in (0, 1].
        generator: must be None; which records are drawn has to stay secret, so it has no seed.
        steps: default ``int(1 / sample_rate)``.
    """

    def __init__(
        self, *, num_samples: int, sample_rate: float, generator: object = None, steps: int | None = None
    ) -> None:
        refuse_generator(generator)
        self.num_samples = num_samples
        self.sample_rate = sample_rate
        self.generator = None
        self._sampler = _core.PoissonSampler(num_samples, sample_rate)
        self.steps = steps if steps is not None else int(1 / sample_rate)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            yield self._sampler.draw()


def refuse_generator(generator: object) -> None:
    """Raises InvalidArgument for anything but None."""
    if generator is not None:
        raise InvalidArgument(
            "[data_loader] Expected generator=None, received one: who is in a batch has to stay secret, and a generator that can be seeded "
            "tells. Leave it out; batches come from the system's secure generator."
        )


if not TYPE_CHECKING:
    __getattr__ = refuse(
        __name__,
        {
            "DistributedUniformWithReplacementSampler": "training is in one process. Use UniformWithReplacementSampler, or the loader of make_private"
        },
    )
