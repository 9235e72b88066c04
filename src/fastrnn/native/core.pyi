# SPDX-License-Identifier: BSD-3-Clause
# Types of core.pyx.  `_Array` is anything with the buffer protocol: a NumPy array.
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

_Array: TypeAlias = Any

BUILT: tuple[str, ...]
COMPILER: str
MOST_THREADS: int
STACK: int
SUPPORTED: tuple[str, ...]
THREADING: str
WEIGHTS: dict[str, int]

def active_target() -> str: ...
def kernels(dtype: Any, weights: str | None = None) -> Kernels: ...
def prepare(n_threads: int) -> None: ...
def stack_left() -> int: ...
def system_level2_bytes() -> int: ...
def system_allowed_cpus() -> int: ...
def openmp_max_threads() -> int: ...
def openmp_is_shared() -> bool: ...
def openmp_processors() -> int: ...
def set_level2_bytes(n_bytes: int) -> int: ...
def set_most_threads(n: int) -> int: ...
def set_observer(
    observe: Callable[[int, int, int, float, float, float], int] | None,
) -> None: ...
def use_isa(name: str) -> AbstractContextManager[None]: ...

class Kernels:
    target: str
    dtype: str
    lanes: int
    half: bool
    def fingerprint(self, x: _Array, n_threads: int = 1) -> bytes: ...
    def linear_work_size(
        self, backward: bool, N: int, I: int, O: int, n_threads: int
    ) -> int: ...
    def linear_forward(
        self,
        n_threads: int,
        N: int,
        I: int,
        O: int,
        x: _Array,
        W: _Array,
        b: _Array | None,
        y: _Array,
        work: _Array,
    ) -> None: ...
    def linear_backward(
        self,
        n_threads: int,
        N: int,
        I: int,
        O: int,
        x: _Array,
        W: _Array,
        dy: _Array,
        dx: _Array | None,
        dW: _Array,
        db: _Array | None,
        work: _Array,
    ) -> None: ...
    def quantized_linear_packed_size(self, I: int, O: int) -> int: ...
    def pack_quantized_linear(
        self,
        I: int,
        O: int,
        W: _Array,
        W_scale: _Array | None,
        b: _Array | None,
        packed: _Array,
    ) -> None: ...
    def quantized_linear_work_size(self, I: int, n_threads: int) -> int: ...
    def quantized_linear(
        self,
        n_threads: int,
        N: int,
        I: int,
        O: int,
        x: _Array,
        packed: _Array,
        y: _Array,
        work: _Array,
    ) -> None: ...
    def activation(self, name: str, x: _Array, y: _Array) -> None: ...
    def fma_peak(self, n_threads: int, n: int) -> float: ...
    def norm(
        self, n_threads: int, x: _Array, power: float, spans: _Array | None = None
    ) -> float: ...
    def scale(
        self, n_threads: int, x: _Array, factor: float, spans: _Array | None = None
    ) -> None: ...
    def clamp(
        self, n_threads: int, x: _Array, limit: float, spans: _Array | None = None
    ) -> None: ...
    def clear(self, n_threads: int, x: _Array, spans: _Array | None = None) -> None: ...
    def cross_entropy(
        self,
        n_threads: int,
        rows: int,
        classes: int,
        logits: _Array,
        targets: _Array,
        ignore_index: int,
        weight: float,
        dlogits: _Array,
    ) -> float: ...
    def mse(
        self,
        n_threads: int,
        n: int,
        prediction: _Array,
        target: _Array,
        weight: float,
        dprediction: _Array,
    ) -> float: ...
    def embedding_forward(
        self,
        n_threads: int,
        n: int,
        rows: int,
        width: int,
        indices: _Array,
        weight: _Array,
        y: _Array,
        with_none: bool = False,
    ) -> None: ...
    def embedding_backward(
        self,
        n_threads: int,
        n: int,
        rows: int,
        width: int,
        indices: _Array,
        padding: int,
        dy: _Array,
        dweight: _Array,
    ) -> None: ...
    def dropout(
        self,
        n_threads: int,
        seed: int,
        p: float,
        x: _Array,
        y: _Array,
        block: int = 0,
        first: int = 0,
        stride: int = 0,
    ) -> None: ...
