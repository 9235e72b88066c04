# SPDX-License-Identifier: BSD-3-Clause
# Types of single.pyx.  `_Array` is anything with the buffer protocol: a NumPy array.
from typing import Any, Self, TypeAlias, final

from fastrnn.native.celltable import CellOptions
from fastrnn.native.core import Kernels
from fastrnn.native.draws import Draw

_Array: TypeAlias = Any

def packed_size(kernels: Kernels, backward: bool, shape: Shape) -> int: ...
def pack(
    kernels: Kernels,
    backward: bool,
    shape: Shape,
    W: _Array,
    R: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    packed: _Array,
    P: _Array | None = None,
    W_hr: _Array | None = None,
    n_threads: int = 1,
    forward: _Array | None = None,
    norm_ih: _Array | None = None,
    norm_hh: _Array | None = None,
    norm_c: _Array | None = None,
    norm_c_bias: _Array | None = None,
) -> None: ...
def pack_quantized(
    kernels: Kernels,
    shape: Shape,
    W: _Array,
    R: _Array,
    W_scale: _Array | None,
    R_scale: _Array | None,
    b_ih: _Array | None,
    b_hh: _Array | None,
    packed: _Array,
    P: _Array | None = None,
) -> None: ...
def tape_size(kernels: Kernels, shape: Shape) -> int: ...
def work_size(
    kernels: Kernels, backward: bool, shape: Shape, n_threads: int
) -> int: ...
def forward(
    kernels: Kernels,
    shape: Shape,
    n_threads: int,
    x: StridedArray,
    packed: _Array,
    h0: _Array,
    c0: _Array | None,
    y: StridedArray,
    h_n: _Array,
    c_n: _Array | None,
    tape: _Array | None,
    work: _Array,
    draw: Draw | None = None,
) -> None: ...
def backward(
    kernels: Kernels,
    shape: Shape,
    n_threads: int,
    x: StridedArray,
    packed: _Array,
    h0: _Array,
    y: StridedArray,
    tape: _Array | None,
    dy: StridedArray | None,
    dh_n: _Array | None,
    dc_n: _Array | None,
    dx: StridedArray | None,
    dx_accumulate: bool,
    dh0: _Array,
    dc0: _Array | None,
    dW: _Array | None,
    dR: _Array | None,
    db_ih: _Array | None,
    db_hh: _Array | None,
    work: _Array,
    dP: _Array | None = None,
    dW_hr: _Array | None = None,
    clip_value: float = 0.0,
    clip_norm: float = 0.0,
    flow: _Array | None = None,
    dnorm_ih: _Array | None = None,
    dnorm_hh: _Array | None = None,
    dnorm_c: _Array | None = None,
    dnorm_c_bias: _Array | None = None,
    draw: Draw | None = None,
) -> None: ...

class Shape:
    rows: int
    def __new__(
        cls,
        cell: int,
        reverse: bool,
        T: int,
        B: int,
        I: int,
        H: int,
        offsets: _Array | None = None,
        options: CellOptions | None = None,
    ) -> Self: ...

class StridedArray:
    def __new__(cls, array: _Array, first: int, step: int, row: int) -> Self: ...

@final
class OneStep:
    y: _Array
    def __new__(
        cls,
        kernels: Kernels,
        shape: Shape,
        n_threads: int,
        packed: _Array,
        h: _Array,
        c: _Array | None,
        y: _Array,
        work: _Array,
    ) -> Self: ...
    def step(self, x: _Array) -> _Array: ...
