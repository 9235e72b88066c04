# SPDX-License-Identifier: BSD-3-Clause
# Types of optimizers.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from collections.abc import Sequence
from typing import Any

from fastrnn.native.core import Kernels

Array = Any

N_RATES: int

def sgd(
    kernels: Kernels,
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
    rows: TableRows | None = None,
) -> None: ...
def rmsprop(
    kernels: Kernels,
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
    rows: TableRows | None = None,
) -> None: ...
def adagrad(
    kernels: Kernels,
    n_threads: int,
    p: Array,
    g: Array,
    state: Sequence[Array | None],
    rates: Sequence[float],
    weight_decay: float,
    maximize: bool,
    eps: float,
    rows: TableRows | None = None,
) -> None: ...
def adam(
    kernels: Kernels,
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
    rows: TableRows | None = None,
) -> None: ...

class TableRows:
    def __init__(
        self,
        width: int,
        rows: Array,
        seen: Array,
        now: int,
        rates: Array,
        with_gradient: bool,
    ) -> None: ...
