# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/lstm.c and fastrnn.LSTM against the reference."""

from cell_suite import CellSuite


class TestLSTM(CellSuite):
    cell = "lstm"
