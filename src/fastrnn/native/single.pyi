# SPDX-License-Identifier: BSD-3-Clause
# Types of single.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from typing import Any

from fastrnn.native.celltable import CellOptions
from fastrnn.native.core import Kernels

Array = Any

def packed_size(kernels: Kernels, backward: bool, shape: Shape) -> int: ...
def pack(
    kernels: Kernels,
    backward: bool,
    shape: Shape,
    W: Array,
    R: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    packed: Array,
    P: Array | None = None,
    W_hr: Array | None = None,
    n_threads: int = 1,
    forward: Array | None = None,
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
    packed: Array,
    h0: Array,
    c0: Array | None,
    y: StridedArray,
    h_n: Array,
    c_n: Array | None,
    tape: Array | None,
    work: Array,
) -> None: ...
def backward(
    kernels: Kernels,
    shape: Shape,
    n_threads: int,
    x: StridedArray,
    packed: Array,
    h0: Array,
    y: StridedArray,
    tape: Array | None,
    dy: StridedArray | None,
    dh_n: Array | None,
    dc_n: Array | None,
    dx: StridedArray | None,
    dx_accumulate: bool,
    dh0: Array,
    dc0: Array | None,
    dW: Array | None,
    dR: Array | None,
    db_ih: Array | None,
    db_hh: Array | None,
    work: Array,
    dP: Array | None = None,
    dW_hr: Array | None = None,
    clip_value: float = 0,
    clip_norm: float = 0,
    flow: Array | None = None,
) -> None: ...

class Shape:
    rows: int
    def __init__(
        self,
        cell: int,
        reverse: bool,
        T: int,
        B: int,
        I: int,
        H: int,
        offsets: Array | None = None,
        options: CellOptions | None = None,
    ) -> None: ...

class StridedArray:
    def __init__(self, array: Array, first: int, step: int, row: int) -> None: ...

class OneStep:
    y: Array
    def __init__(
        self,
        kernels: Kernels,
        shape: Shape,
        n_threads: int,
        packed: Array,
        h: Array,
        c: Array | None,
        y: Array,
        work: Array,
    ) -> None: ...
    def step(self, x: Array) -> Array: ...
