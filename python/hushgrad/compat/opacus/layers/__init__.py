"""Opacus' re-implemented layers are PyTorch's own here: those train privately as they are."""

from typing import TYPE_CHECKING

from hushgrad.compat.opacus._missing import refuse
from hushgrad.compat.opacus.layers.dp_multihead_attention import DPMultiheadAttention
from hushgrad.compat.opacus.layers.dp_rnn import DPGRU, DPLSTM, DPRNN


__all__ = ["DPGRU", "DPLSTM", "DPMultiheadAttention", "DPRNN"]

if not TYPE_CHECKING:
    __getattr__ = refuse(
        __name__,
        {
            "RenameParamsMixin": "torch.nn.LSTM, GRU and RNN need no renamed parameters",
            "SequenceBias": "torch.nn.MultiheadAttention(add_bias_kv=True) trains as it is",
        },
    )
