# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/gru.c and fastrnn.GRU against the reference."""

from cell_suite import CellSuite


class TestGRU(CellSuite):
    cell = "gru"
