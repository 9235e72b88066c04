# SPDX-License-Identifier: BSD-3-Clause
# Types of arrays.pyx.  `_Array` is anything with the buffer protocol: a NumPy array.
from typing import Any, Self, TypeAlias, final

from fastrnn.native.calls import Plan
from fastrnn.native.core import Kernels
from fastrnn.native.draws import Draw
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Loan, Pool
from fastrnn.native.weights import Use

_Array: TypeAlias = Any

@final
class OpenBlock: ...

@final
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
    def __new__(
        cls,
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
        offsets: _Array | None = None,
        y_inside: bool = False,
        padded: bool = False,
    ) -> Self: ...
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
        x: _Array,
        x_at: int,
        h0: _Array | None,
        c0: _Array | None,
        seeds: _Array | None,
        p: float,
        y: _Array | None,
        y_at: int,
        end: _Array,
        training: bool,
        draw: Draw | None = None,
    ) -> Loan | None: ...
    def backward(
        self,
        pool: Pool,
        use: Use,
        kept: Loan,
        x: _Array,
        x_at: int,
        seeds: _Array | None,
        p: float,
        y: _Array | None,
        y_at: int,
        dy: _Array | None,
        dh_n: _Array | None,
        dc_n: _Array | None,
        dx: _Array,
        d_start: _Array,
        grads: _Array,
        grads_start: int,
        block: OpenBlock | None = None,
        open: bool = False,
        flow: _Array | None = None,
        flow_at: int = 0,
        draw: Draw | None = None,
    ) -> None: ...
    def take_block(self, pool: Pool) -> OpenBlock: ...
