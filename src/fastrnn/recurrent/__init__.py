# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent layers: the cells, what runs them, and what is made of them."""

from fastrnn.recurrent.gru import GRU
from fastrnn.recurrent.indrnn import IndRNN
from fastrnn.recurrent.leaky import LeakyRNN
from fastrnn.recurrent.ligru import LiGRU
from fastrnn.recurrent.lstm import LSTM
from fastrnn.recurrent.mgu import MGU
from fastrnn.recurrent.mingru import MinGRU, MinLSTM
from fastrnn.recurrent.rnn import RNN
from fastrnn.recurrent.slstm import SLSTM
from fastrnn.recurrent.sru import SRU

__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "RNN",
    "SLSTM",
    "SRU",
    "IndRNN",
    "LeakyRNN",
    "LiGRU",
    "MinGRU",
    "MinLSTM",
]
