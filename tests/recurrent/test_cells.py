# SPDX-License-Identifier: BSD-3-Clause
"""Every cell of csrc/kernels and its class of layers against the reference."""

import cells
from cell_suite import CellSuite

# One class of tests for each cell of the table: TestLSTM, TestRNNReLU and so on.
for _cell in cells.CELLS:
    _name = cells.celltable.cell(_cell).layer
    if function := cells.nonlinearity_of(_cell):
        _name += function["nonlinearity"].title()
    globals()[f"Test{_name}"] = type(f"Test{_name}", (CellSuite,), {"cell": _cell})
del _name
