"""Losses that are a mean of one value a sample, where PyTorch's own mean mixes the samples of a batch.

Clipping bounds one sample's gradient, so each sample's share of the loss must depend on that sample only. Most losses
of ``torch.nn.functional`` with ``reduction="mean"`` are fine: they divide by the number of elements, which is public.
Cross-entropy is not when positions are ignored or classes are weighted: it divides by the number of kept positions, or
by the sum of the class weights, of the whole batch.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from hushgrad.errors import InvalidArgument

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The mean over samples of each sample's own mean over its kept positions.

    For a batch of one this is ``torch.nn.functional.cross_entropy``; for more it is the mean of that over the samples,
    so no sample's value depends on how many positions another one keeps. Train with ``loss_reduction="mean"``.

    | sample | its value |
    | --- | --- |
    | some positions kept | sum of w_y * loss / sum of w_y over them, as torch for that sample alone |
    | every position ignored, or of weight 0 | 0, with zero gradient (torch: nan) |
    | no samples at all | the loss is 0 (torch: nan) |

    Args:
        logits: [B, C] or [B, C, d1, ...], C classes.
        target: class indices [B] or [B, d1, ...], or class probabilities in the shape of ``logits``.
        weight: [C], a factor for each class; public, never computed from the rows.
        ignore_index: positions with this target count for nothing. Class indices only.
        label_smoothing: in [0, 1].

    Raises:
        InvalidArgument: shapes that do not belong together; logits without a batch dimension.

    >>> logits, target = torch.zeros(2, 4, 3), torch.tensor([[0, 1, 2], [3, -100, -100]])
    >>> round(cross_entropy(logits, target).item(), 4)      # both samples' own mean is log 4
    1.3863
    """
    probabilities = _check(logits, target)
    losses = F.cross_entropy(
        logits, target, weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    shares = torch.ones_like(losses) if probabilities else _shares(target, weight, ignore_index, losses)
    positions = list(range(1, losses.dim()))
    totals, counts = (t.sum(positions) if positions else t for t in (losses, shares))
    return (totals / counts.where(counts > 0, 1.0)).sum() / max(logits.size(0), 1)


def _check(logits: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether the target holds probabilities."""
    if logits.dim() < 2:
        raise InvalidArgument(
            f"[cross_entropy] Expected logits of shape [B, C] or [B, C, d1, ...], received {list(logits.shape)}. Keep the batch dimension."
        )
    positions = [logits.size(0), *logits.shape[2:]]
    if list(target.shape) == positions and not target.is_floating_point():
        return False
    if target.shape == logits.shape and target.is_floating_point():
        return True
    raise InvalidArgument(
        f"[cross_entropy] Expected a target of class indices {positions} or of probabilities {list(logits.shape)}, received "
        f"{target.dtype} {list(target.shape)}. Classes are dimension 1: transpose [B, T, C] logits to [B, C, T], do not flatten them."
    )


def _shares(target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int, losses: torch.Tensor) -> torch.Tensor:
    kept = target != ignore_index
    if weight is None:
        return kept.to(losses.dtype)
    return weight[target.where(kept, 0)].to(losses.dtype) * kept
