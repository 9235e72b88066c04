# SPDX-License-Identifier: BSD-3-Clause
# Types of _core.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from contextlib import AbstractContextManager
from typing import Any

Array = Any

BUILT: tuple[str, ...]
CELLS: dict[str, int]
COMPILER: str
OPENMP: bool
SUPPORTED: tuple[str, ...]

def active_target() -> str: ...
def kernels(dtype: str) -> Kernels: ...
def use_isa(name: str) -> AbstractContextManager[None]: ...

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
    ) -> None: ...

class Series:
    def __init__(self, array: Array, first: int, step: int, row: int) -> None: ...

class Kernels:
    target: str
    dtype: str
    lanes: int
    def pack(
        self,
        backward: bool,
        cell: int,
        I: int,
        H: int,
        W: Array,
        R: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        packed: Array,
    ) -> None: ...
    def fingerprint(self, x: Array) -> bytes: ...
    def packed_size(self, backward: bool, cell: int, I: int, H: int) -> int: ...
    def tape_size(self, shape: Shape) -> int: ...
    def work_size(self, backward: bool, shape: Shape, n_threads: int) -> int: ...
    def forward(
        self,
        shape: Shape,
        n_threads: int,
        x: Series,
        packed: Array,
        h0: Array,
        c0: Array | None,
        y: Series,
        h_n: Array,
        c_n: Array | None,
        tape: Array | None,
        work: Array,
    ) -> None: ...
    def backward(
        self,
        shape: Shape,
        n_threads: int,
        x: Series,
        packed: Array,
        h0: Array,
        y: Series,
        tape: Array | None,
        dy: Series | None,
        dh_n: Array | None,
        dc_n: Array | None,
        dx: Series | None,
        dx_accumulate: bool,
        dh0: Array,
        dc0: Array | None,
        dW: Array,
        dR: Array,
        db_ih: Array | None,
        db_hh: Array | None,
        work: Array,
    ) -> None: ...
    def linear_work_size(self, backward: bool, N: int, I: int, O: int) -> int: ...
    def linear_forward(
        self,
        n_threads: int,
        N: int,
        I: int,
        O: int,
        x: Array,
        W: Array,
        b: Array | None,
        y: Array,
        work: Array,
    ) -> None: ...
    def linear_backward(
        self,
        n_threads: int,
        N: int,
        I: int,
        O: int,
        x: Array,
        W: Array,
        dy: Array,
        dx: Array | None,
        dW: Array,
        db: Array | None,
        work: Array,
    ) -> None: ...
    def activation(self, which: int, x: Array, y: Array) -> None: ...
    def fma_peak(self, n_threads: int, n: int) -> float: ...
    def sgd(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        lr: float,
        weight_decay: float,
        maximize: bool,
        momentum: float,
        dampening: float,
        nesterov: bool,
        first: bool,
        buffer: Array | None,
    ) -> None: ...
    def rmsprop(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        lr: float,
        weight_decay: float,
        maximize: bool,
        alpha: float,
        eps: float,
        momentum: float,
        square: Array,
        mean: Array | None,
        buffer: Array | None,
    ) -> None: ...
    def adagrad(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        lr: float,
        weight_decay: float,
        maximize: bool,
        eps: float,
        square: Array,
    ) -> None: ...
    def adam(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        lr: float,
        weight_decay: float,
        maximize: bool,
        beta1: float,
        beta2: float,
        eps: float,
        correction1: float,
        correction2: float,
        decoupled: bool,
        mean: Array,
        square: Array,
        largest: Array | None,
    ) -> None: ...
    def norm(self, n_threads: int, x: Array, power: float) -> float: ...
    def scale(self, n_threads: int, x: Array, factor: float) -> None: ...
    def clamp(self, n_threads: int, x: Array, limit: float) -> None: ...
    def cross_entropy(
        self,
        n_threads: int,
        rows: int,
        classes: int,
        logits: Array,
        targets: Array,
        ignore_index: int,
        weight: float,
        dlogits: Array,
    ) -> float: ...
    def mse(
        self,
        n_threads: int,
        n: int,
        prediction: Array,
        target: Array,
        weight: float,
        dprediction: Array,
    ) -> float: ...
    def embedding_forward(
        self,
        n_threads: int,
        n: int,
        rows: int,
        width: int,
        indices: Array,
        weight: Array,
        y: Array,
    ) -> None: ...
    def embedding_backward(
        self,
        n_threads: int,
        n: int,
        rows: int,
        width: int,
        indices: Array,
        padding: int,
        dy: Array,
        dweight: Array,
    ) -> None: ...
    def dropout(
        self, n_threads: int, seed: int, p: float, x: Array, y: Array
    ) -> None: ...

class Stepper:
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
