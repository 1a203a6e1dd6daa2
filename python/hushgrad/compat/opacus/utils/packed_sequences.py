"""Helpers of Opacus' recurrent layers."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(__name__, "torch.nn.LSTM, GRU and RNN take packed sequences as they are")
