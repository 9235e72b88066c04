# SPDX-License-Identifier: BSD-3-Clause
# Types of weights.pyx.  `Array` is anything with the buffer protocol: a NumPy array; a
# `Tensor` is what views.pyx can describe: PyTorch's.
from collections.abc import Sequence
from typing import Any

from fastrnn.native.core import Kernels
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Loan, Pool

Array = Any
Tensor = Any

class Source: ...

class PackedCell:
    forward: Loan | None
    backward: Loan | None

class Use:
    def keep_forward(self) -> None: ...
    def can_run_again(self, first: int, kept: Use) -> bool: ...
    def make_backward(
        self, kernels: Kernels, n_threads: int, tensors: Sequence[Tensor]
    ) -> None: ...

class Packer:
    current: list[PackedCell | None]
    def __init__(self, layout: Layout, pool: Pool) -> None: ...
    def take(
        self,
        kernels: Kernels,
        n_threads: int,
        parameters: Array,
        start: int,
        with_backward: bool,
    ) -> Use: ...
    def take_tensors(
        self,
        kernels: Kernels,
        n_threads: int,
        tensors: Sequence[Tensor],
        versions: Sequence[int],
        forward: bool,
        backward: bool,
    ) -> Use: ...
