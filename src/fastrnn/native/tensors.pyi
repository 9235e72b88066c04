# SPDX-License-Identifier: BSD-3-Clause
# Types of tensors.pyx.  A `_Tensor` is what views.pyx can describe:
# PyTorch's, or an array of NumPy's.
from collections.abc import Sequence
from typing import Any, Self, TypeAlias, final

from fastrnn.native.calls import Plan
from fastrnn.native.core import Kernels
from fastrnn.native.draws import Draw
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Pool
from fastrnn.native.weights import Use

_Tensor: TypeAlias = Any

def is_contiguous(tensor: _Tensor, kernels: Kernels) -> bool: ...
def is_series(tensor: _Tensor, kernels: Kernels) -> bool: ...

@final
class TensorPlan(Plan):
    tape_size: int
    def __new__(
        cls,
        kernels: Kernels,
        layout: Layout,
        T: int,
        B: int,
        offsets: Sequence[int] | None = None,
    ) -> Self: ...
    def layers_at_once(self, n_threads: int) -> int: ...
    def forward(
        self,
        pool: Pool,
        first: int,
        n_threads: int,
        use: Use,
        inputs: list[_Tensor],
        batch_first: bool,
        h0: _Tensor | None,
        c0: _Tensor | None,
        outputs: list[_Tensor],
        h_n: _Tensor | None,
        c_n: _Tensor | None,
        tapes: _Tensor | None,
        draw: Draw | None = None,
    ) -> None: ...
    def backward(
        self,
        pool: Pool,
        first: int,
        n_threads: int,
        use: Use,
        inputs: list[_Tensor],
        batch_first: bool,
        h0: _Tensor | None,
        outputs: list[_Tensor],
        tapes: _Tensor | None,
        dy: _Tensor | None,
        dh_n: _Tensor | None,
        dc_n: _Tensor | None,
        dinputs: list[_Tensor | None],
        dh0: _Tensor | None,
        dc0: _Tensor | None,
        dweights: Sequence[_Tensor | None],
        draw: Draw | None = None,
    ) -> None: ...
