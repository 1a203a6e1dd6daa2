"""The loud seam for tests and debugging: batches and noise that repeat."""

from __future__ import annotations

from dataclasses import dataclass

from hushgrad.errors import InvalidArgument

__all__ = ["InsecureSeed"]


@dataclass(frozen=True)
class InsecureSeed:
    """``noise_generator=InsecureSeed(7)`` repeats batches and noise. NO PRIVACY: whoever knows or guesses the number can
    subtract the noise. The ledger records it, and every report shows it. seed: 0 <= seed < 2^64, else InvalidArgument.
    """

    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise InvalidArgument(f"[InsecureSeed] Expected an integer in [0, 2^64), received {self.seed!r}.")
