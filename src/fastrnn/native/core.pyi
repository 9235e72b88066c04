# SPDX-License-Identifier: BSD-3-Clause
# Types of core.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

Array = Any

ACTIVATIONS: dict[str, int]
BUILT: tuple[str, ...]
CELLS: dict[str, int]
COMPILER: str
MOST_THREADS: int
N_RATES: int
STACK: int
OPENMP: bool
SUPPORTED: tuple[str, ...]

def active_target() -> str: ...
def cell(name: str) -> Cell: ...
def kernels(dtype: Any) -> Kernels: ...
def is_clear(array: Any, begin: int, end: int) -> bool: ...
def prepare(n_threads: int) -> None: ...
def offsets_of(batch_sizes: Array, rows: int) -> Array | None: ...
def openmp_is_shared() -> bool: ...
def use_isa(name: str) -> AbstractContextManager[None]: ...

class Cell(NamedTuple):
    name: str
    index: int
    layer: str
    gates: tuple[str, ...]
    n_states: int
    activations: tuple[str, ...]
    options: tuple[str, ...]
    bias_apart: str | None
    paper: str

class Options:
    general: bool
    proj_size: int
    def __init__(
        self,
        activations: Sequence[tuple[str, float, float]] | None = None,
        clip: float = 0,
        input_forget: bool = False,
        peephole: bool = False,
        reset_before: bool = False,
        proj_size: int = 0,
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
        options: Options | None = None,
    ) -> None: ...

class Series:
    def __init__(self, array: Array, first: int, step: int, row: int) -> None: ...

class Rows:
    def __init__(
        self,
        width: int,
        rows: Array,
        seen: Array,
        now: int,
        rates: Array,
        with_gradient: bool,
    ) -> None: ...

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
        options: Options | None = None,
        P: Array | None = None,
        W_hr: Array | None = None,
        n_threads: int = 1,
        forward: Array | None = None,
    ) -> None: ...
    def fingerprint(self, x: Array, n_threads: int = 1) -> bytes: ...
    def packed_size(
        self,
        backward: bool,
        cell: int,
        I: int,
        H: int,
        options: Options | None = None,
    ) -> int: ...
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
    def linear_work_size(
        self, backward: bool, N: int, I: int, O: int, n_threads: int
    ) -> int: ...
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
    def activation(self, name: str, x: Array, y: Array) -> None: ...
    def fma_peak(self, n_threads: int, n: int) -> float: ...
    def sgd(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        state: Sequence[Array | None],
        rates: Sequence[float],
        weight_decay: float,
        maximize: bool,
        momentum: float,
        dampening: float,
        nesterov: bool,
        first: bool,
        rows: Rows | None = None,
    ) -> None: ...
    def rmsprop(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        state: Sequence[Array | None],
        rates: Sequence[float],
        weight_decay: float,
        maximize: bool,
        alpha: float,
        eps: float,
        momentum: float,
        rows: Rows | None = None,
    ) -> None: ...
    def adagrad(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        state: Sequence[Array | None],
        rates: Sequence[float],
        weight_decay: float,
        maximize: bool,
        eps: float,
        rows: Rows | None = None,
    ) -> None: ...
    def adam(
        self,
        n_threads: int,
        p: Array,
        g: Array,
        state: Sequence[Array | None],
        rates: Sequence[float],
        weight_decay: float,
        maximize: bool,
        beta1: float,
        beta2: float,
        eps: float,
        rows: Rows | None = None,
    ) -> None: ...
    def norm(
        self, n_threads: int, x: Array, power: float, spans: Array | None = None
    ) -> float: ...
    def scale(
        self, n_threads: int, x: Array, factor: float, spans: Array | None = None
    ) -> None: ...
    def clamp(
        self, n_threads: int, x: Array, limit: float, spans: Array | None = None
    ) -> None: ...
    def clear(self, n_threads: int, x: Array, spans: Array | None = None) -> None: ...
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
        with_none: bool = False,
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
