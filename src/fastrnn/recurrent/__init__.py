# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent layers: the cells, what runs them, and what is made of them."""

from fastrnn.recurrent.cells import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
