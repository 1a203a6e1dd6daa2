"""One schedule for any attribute of a private optimizer."""

from __future__ import annotations

from typing import Any

from hushgrad.errors import InvalidArgument

__all__ = ["AttributeScheduler"]


class AttributeScheduler:
    """Writes ``_next()`` to the optimizer's ``_attribute`` when made and at each ``step()``.

    A schedule may follow public knowledge only (the epoch): what is written is part of what was done, not protected.
    """

    _attribute: str

    def __init__(self, optimizer: Any, *, last_epoch: int = -1) -> None:
        if not hasattr(optimizer, self._attribute):
            raise InvalidArgument(
                f"[schedulers] Expected an optimizer with {self._attribute}, received {type(optimizer).__name__} without. Pass the optimizer "
                "that make_private returned."
            )
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions, which belong to the script."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer" and not callable(value)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a state_dict() was taken. The optimizer's present value stays until the next step()."""
        self.__dict__.update(state_dict)

    def step(self) -> None:
        """One epoch on."""
        self.last_epoch += 1
        setattr(self.optimizer, self._attribute, self._next())

    def _next(self) -> Any:
        raise NotImplementedError

    @property
    def _current(self) -> Any:
        return getattr(self.optimizer, self._attribute)

    def _is_due(self, step_size: int) -> bool:
        return self.last_epoch != 0 and self.last_epoch % step_size == 0
