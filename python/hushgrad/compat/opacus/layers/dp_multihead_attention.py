"""``DPMultiheadAttention`` is ``torch.nn.MultiheadAttention``."""

from torch.nn import MultiheadAttention as DPMultiheadAttention

__all__ = ["DPMultiheadAttention"]
