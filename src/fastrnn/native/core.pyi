# SPDX-License-Identifier: BSD-3-Clause
# Types of core.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Array = Any

BUILT: tuple[str, ...]
COMPILER: str
MOST_THREADS: int
STACK: int
OPENMP: bool
SUPPORTED: tuple[str, ...]

def active_target() -> str: ...
def kernels(dtype: Any) -> Kernels: ...
def prepare(n_threads: int) -> None: ...
def openmp_is_shared() -> bool: ...
def set_level2_bytes(n_bytes: int) -> int: ...
def set_observer(
    observe: Callable[[int, int, int, float, float, float], int] | None,
) -> None: ...
def use_isa(name: str) -> AbstractContextManager[None]: ...

class Kernels:
    target: str
    dtype: str
    lanes: int
    def fingerprint(self, x: Array, n_threads: int = 1) -> bytes: ...
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
