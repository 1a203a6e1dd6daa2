"""``DPLSTM`` is ``torch.nn.LSTM``: same state_dict, packed sequences and projections included."""

from torch.nn import GRU as DPGRU
from torch.nn import LSTM as DPLSTM
from torch.nn import RNN as DPRNN

__all__ = ["DPGRU", "DPLSTM", "DPRNN"]
