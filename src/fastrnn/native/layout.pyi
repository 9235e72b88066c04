# SPDX-License-Identifier: BSD-3-Clause
# Types of layout.pyx.
from typing import Self, final

from fastrnn.native.celltable import CellOptions

@final
class Layout:
    cell: int
    n_layers: int
    n_directions: int
    n_cells: int
    n_states: int
    I: int
    H: int
    S: int
    heads: int
    merged: bool
    def __new__(
        cls,
        cell: str,
        I: int,
        H: int,
        n_layers: int,
        n_directions: int,
        bias: bool,
        options: CellOptions | None = None,
        merged: bool = False,
        clip_value: float = 0,
        clip_norm: float = 0,
    ) -> Self: ...
