# SPDX-License-Identifier: BSD-3-Clause
# Types of weights.pyx.  `_Array` is anything with the buffer protocol: a NumPy array; a
# `_Tensor` is what views.pyx can describe: PyTorch's.
from collections.abc import Sequence
from typing import Any, Self, TypeAlias, final

from fastrnn.native.core import Kernels
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Loan, Pool

_Array: TypeAlias = Any
_Tensor: TypeAlias = Any

def set_turns_from(n_bytes: int) -> int: ...

@final
class Source: ...

@final
class PackedCell:
    forward: Loan | None
    backward: Loan | None

@final
class Use:
    def keep_forward(self) -> None: ...
    def can_run_again(self, first: int, kept: Use) -> bool: ...
    def make_backward(
        self, kernels: Kernels, n_threads: int, tensors: Sequence[_Tensor]
    ) -> None: ...

@final
class Packer:
    current: list[PackedCell | None]
    def __new__(cls, layout: Layout, pool: Pool) -> Self: ...
    def take(
        self,
        kernels: Kernels,
        n_threads: int,
        parameters: _Array,
        start: int,
        with_backward: bool,
    ) -> Use: ...
    def take_packed(self, kernels: Kernels, forms: Sequence[Loan]) -> Use: ...
    def take_tensors(
        self,
        kernels: Kernels,
        n_threads: int,
        tensors: Sequence[_Tensor],
        versions: Sequence[int] | None,
        forward: bool,
        backward: bool,
    ) -> Use: ...
