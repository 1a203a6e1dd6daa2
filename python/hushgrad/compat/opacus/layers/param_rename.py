"""Opacus renames the parameters of its own recurrent layers; torch.nn's keep theirs."""

from hushgrad.compat.opacus._missing import not_offered

raise not_offered(__name__, "torch.nn.LSTM, GRU and RNN need no renamed parameters")
