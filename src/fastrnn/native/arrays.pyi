# SPDX-License-Identifier: BSD-3-Clause
# Types of arrays.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from typing import Any

from fastrnn.native.calls import Plan
from fastrnn.native.core import Kernels
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Loan, Pool
from fastrnn.native.weights import Use

Array = Any

class OpenBlock: ...

class ArrayPlan(Plan):
    n_threads: int
    T: int
    B: int
    batch_first: bool
    padded: bool
    at_once: int
    length: int
    is_whole: bool
    inner_shape: tuple[int, ...]
    x_step: int
    y_step: int
    x_row: int
    y_row: int
    keeps: bool
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    state_shape: tuple[int, int, int, int]
    def __init__(
        self,
        kernels: Kernels,
        n_threads: int,
        layout: Layout,
        T: int,
        B: int,
        *,
        batch_first: bool = False,
        length: int = 0,
        first: int = 0,
        n_cells: int = 0,
        offsets: Array | None = None,
        y_inside: bool = False,
        padded: bool = False,
    ) -> None: ...
    def fits(
        self, kernels: Kernels, n_threads: int, batch_first: bool, x: Any
    ) -> bool: ...
    def part(
        self,
        begin: int,
        end: int,
        first: int = 0,
        n_cells: int = 0,
        n_threads: int = 0,
        y_inside: bool = False,
    ) -> ArrayPlan: ...
    def takes_dy(self, dy: Any) -> bool: ...
    def forward(
        self,
        pool: Pool,
        use: Use,
        x: Array,
        x_at: int,
        h0: Array | None,
        c0: Array | None,
        seeds: Array | None,
        p: float,
        y: Array | None,
        y_at: int,
        end: Array,
        training: bool,
    ) -> Loan | None: ...
    def backward(
        self,
        pool: Pool,
        use: Use,
        kept: Loan,
        x: Array,
        x_at: int,
        seeds: Array | None,
        p: float,
        y: Array | None,
        y_at: int,
        dy: Array | None,
        dh_n: Array | None,
        dc_n: Array | None,
        dx: Array,
        d_start: Array,
        grads: Array,
        grads_start: int,
        block: OpenBlock | None = None,
        open: bool = False,
        flow: Array | None = None,
        flow_at: int = 0,
    ) -> None: ...
    def take_block(self, pool: Pool) -> OpenBlock: ...
