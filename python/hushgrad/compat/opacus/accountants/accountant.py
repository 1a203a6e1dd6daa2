"""What all accountants share: a history of (noise multiplier, sampling rate, steps), and its epsilon."""

from __future__ import annotations

import abc
from collections import Counter, OrderedDict
from collections.abc import Callable, MutableMapping
from copy import deepcopy
from typing import Any

from hushgrad import accounting
from hushgrad.errors import InvalidArgument

__all__ = ["EventAccountant", "History", "IAccountant"]

#: Steps in order, equal ones in a row as one entry.
History = list[tuple[float, float, int]]

class IAccountant(abc.ABC):
    """Opacus' interface. Own accountants derive from it and are named with ``register_accountant``."""

    @abc.abstractmethod
    def __init__(self) -> None:
        self.history: History = []

    @abc.abstractmethod
    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """One noisy step on a Poisson batch drawn with ``sample_rate``."""

    @abc.abstractmethod
    def get_epsilon(self, delta: float, *args: Any, **kwargs: Any) -> float:
        """Epsilon of the history at ``delta``."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Entries of the history: 0 before the first step."""

    @classmethod
    @abc.abstractmethod
    def mechanism(cls) -> str:
        """The accountant's name in ``create_accountant``."""

    def get_optimizer_hook_fn(self, sample_rate: float) -> Callable[[Any], None]:
        """A function for ``attach_step_hook``. Optimizers of a PrivacyEngine need none: its accountant counts by itself."""

        def count(optimizer: Any) -> None:
            self.step(
                noise_multiplier=optimizer.noise_multiplier,
                sample_rate=sample_rate * optimizer.accumulated_iterations,
            )

        return count

    def state_dict(self, destination: MutableMapping[str, Any] | None = None) -> MutableMapping[str, Any]:
        """``{"history", "mechanism"}``, put into ``destination`` if one is given."""
        state = OrderedDict() if destination is None else destination
        state["history"] = deepcopy(self.history)
        state["mechanism"] = self.mechanism()
        return state

    def load_state_dict(self, state_dict: MutableMapping[str, Any]) -> None:
        """Takes over a history. Raises InvalidArgument (a ValueError) for another accountant's or an incomplete one."""
        for key in ("history", "mechanism"):
            if not state_dict or key not in state_dict:
                raise InvalidArgument(
                    f"[accountant] Expected a state with '{key}', received one without. Pass what state_dict() returned."
                )
        if state_dict["mechanism"] != self.mechanism():
            raise InvalidArgument(
                f"[accountant] Expected the state of a {self.mechanism()!r} accountant, received that of {state_dict['mechanism']!r}. "
                f"Build PrivacyEngine(accountant={state_dict['mechanism']!r})."
            )
        self.history = [(float(noise), float(rate), int(steps)) for noise, rate, steps in state_dict["history"]]


class EventAccountant(IAccountant):
    """The history as privacy events; hushgrad.accounting bounds them.

    Guarantee: ``get_epsilon`` is never below the epsilon of the history, nor, on an engine's accountant, below what that
    engine has released: loading an older state or emptying the history gives nothing back.
    """

    #: Of an engine's accountant: the epsilon at a delta of what the engine's ledger was charged, finite precision of the
    #: noise included.
    _released: Callable[[float], float] | None = None

    def __init__(self) -> None:
        super().__init__()

    def __len__(self) -> int:
        return len(self.history)

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """Adds one step to the history."""
        if self.history and self.history[-1][:2] == (noise_multiplier, sample_rate):
            self.history[-1] = (noise_multiplier, sample_rate, self.history[-1][2] + 1)
        else:
            self.history.append((noise_multiplier, sample_rate, 1))

    def _upper(self, delta: float, accountant: str) -> float:
        history: Counter[tuple[float, float]] = Counter()
        for noise_multiplier, sample_rate, steps in self.history:
            history[(noise_multiplier, sample_rate)] += steps
        epsilon = _epsilon(history, delta, accountant)
        return epsilon if self._released is None else max(epsilon, self._released(delta))


def _epsilon(history: Counter[tuple[float, float]], delta: float, accountant: str) -> float:
    # Equal steps are one event however often others came between: the order does not change the composition.
    events = [
        accounting.SelfComposedDpEvent(
            accounting.PoissonSampledDpEvent(float(rate), accounting.GaussianDpEvent(float(noise))), int(steps)
        )
        for (noise, rate), steps in history.items()
    ]
    return accounting.epsilon(accounting.ComposedDpEvent(events), delta, accountant)[1]
