# SPDX-License-Identifier: BSD-3-Clause
# Types of optimizers.pyx.  `_Array` is all that has the buffer protocol: a NumPy array.
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from fastrnn.native.core import Kernels

_Array: TypeAlias = Any

N_RATES: int

def sgd(
    kernels: Kernels,
    n_threads: int,
    p: _Array,
    g: _Array,
    state: Sequence[_Array | None],
    rates: Sequence[float],
    weight_decay: float,
    maximize: bool,
    momentum: float,
    dampening: float,
    nesterov: bool,
    first: bool,
    rows: TableRows | None = None,
) -> None: ...
def rmsprop(
    kernels: Kernels,
    n_threads: int,
    p: _Array,
    g: _Array,
    state: Sequence[_Array | None],
    rates: Sequence[float],
    weight_decay: float,
    maximize: bool,
    alpha: float,
    eps: float,
    momentum: float,
    rows: TableRows | None = None,
) -> None: ...
def adagrad(
    kernels: Kernels,
    n_threads: int,
    p: _Array,
    g: _Array,
    state: Sequence[_Array | None],
    rates: Sequence[float],
    weight_decay: float,
    maximize: bool,
    eps: float,
    rows: TableRows | None = None,
) -> None: ...
def adam(
    kernels: Kernels,
    n_threads: int,
    p: _Array,
    g: _Array,
    state: Sequence[_Array | None],
    rates: Sequence[float],
    weight_decay: float,
    maximize: bool,
    beta1: float,
    beta2: float,
    eps: float,
    rows: TableRows | None = None,
) -> None: ...

class TableRows:
    def __new__(
        cls,
        width: int,
        rows: _Array,
        seen: _Array,
        now: int,
        rates: _Array,
        with_gradient: bool,
    ) -> Self: ...
