# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/rnn.c and fastrnn.RNN against the reference, with both activations."""

from cell_suite import CellSuite


class TestRNNTanh(CellSuite):
    cell = "tanh"


class TestRNNReLU(CellSuite):
    cell = "relu"
