"""The criterion of Opacus' ghost clipping: here an ordinary criterion that also takes ``shape=``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hushgrad.compat.opacus._missing import refuse
from hushgrad.errors import InvalidArgument

__all__ = ["DPLossFastGradientClipping"]


class DPLossFastGradientClipping:
    """What ``make_private(grad_sample_mode="ghost")`` returns as its third object.

    A call returns an ordinary tensor; one backward pass clips exactly, whoever made the loss. Attributes are the
    criterion's.
    """

    criterion: Callable[..., torch.Tensor]

    def __init__(self, criterion: Callable[..., torch.Tensor], loss_reduction: str = "mean") -> None:
        reduction = getattr(criterion, "reduction", loss_reduction)
        if reduction != loss_reduction:
            raise InvalidArgument(
                f"[make_private] Expected a criterion with reduction={loss_reduction!r} as loss_reduction says, received {reduction!r}. "
                "Make them equal."
            )
        self.criterion = criterion
        self.loss_reduction = loss_reduction

    def __call__(self, *args: Any, shape: Sequence[int] | None = None, **kwargs: Any) -> torch.Tensor:
        """The criterion's value.

        shape: of the logits before they were flattened, [B, T, ...]. The loss is then the mean over samples of each
        sample's own mean over its kept positions (``ignore_index``), or the sum of all.
        """
        if shape is None:
            loss: torch.Tensor = self.criterion(*args, **kwargs)
            return loss
        losses = self._unreduced(*args, **kwargs)
        if losses.numel() != shape[0] * shape[1]:
            raise InvalidArgument(
                f"[criterion] Expected one loss for each of {shape[0]} x {shape[1]} positions, received {losses.numel()}. Pass shape= as the "
                "logits had it before they were flattened."
            )
        losses = losses.reshape(shape[0], shape[1])
        if self.loss_reduction == "sum":
            return losses.sum()
        kept = self._kept(args, kwargs, losses)
        return (losses.sum(1) / kept.clamp_min(1)).sum() / max(shape[0], 1)

    def __getattr__(self, name: str) -> Any:
        if name == "criterion":
            raise AttributeError(name)
        return getattr(self.criterion, name)

    def _unreduced(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        criterion: Any = self.criterion
        before = getattr(criterion, "reduction", None)
        if before is None:
            raise InvalidArgument(
                "[criterion] Expected a criterion with a reduction attribute where shape= is given, received one without. "
                "Return the mean over samples yourself and leave shape out."
            )
        criterion.reduction = "none"
        try:
            losses: torch.Tensor = criterion(*args, **kwargs)
        finally:
            criterion.reduction = before
        return losses

    def _kept(self, args: tuple[Any, ...], kwargs: dict[str, Any], losses: torch.Tensor) -> torch.Tensor:
        target = kwargs.get("target", args[1] if len(args) > 1 else None)
        ignored = getattr(self.criterion, "ignore_index", None)
        if ignored is None or target is None:
            return torch.full_like(losses[:, 0], losses.size(1)) if losses.size(1) else losses.sum(1)
        kept: torch.Tensor = target.reshape(losses.shape) != ignored
        return kept.sum(1)


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, {"DPTensorFastGradientClipping": "a loss is an ordinary tensor"})
