# SPDX-License-Identifier: BSD-3-Clause
# Types of tensors.pyx.  A `Tensor` is what views.pyx can describe: PyTorch's.
from collections.abc import Sequence
from typing import Any

from fastrnn.native.calls import Plan
from fastrnn.native.core import Kernels
from fastrnn.native.layout import Layout
from fastrnn.native.memory import Pool
from fastrnn.native.weights import Use

Tensor = Any

def is_contiguous(tensor: Tensor, kernels: Kernels) -> bool: ...
def is_series(tensor: Tensor, kernels: Kernels) -> bool: ...

class TensorPlan(Plan):
    tape_size: int
    def __init__(
        self,
        kernels: Kernels,
        layout: Layout,
        T: int,
        B: int,
        offsets: Sequence[int] | None = None,
    ) -> None: ...
    def layers_at_once(self, n_threads: int) -> int: ...
    def forward(
        self,
        pool: Pool,
        first: int,
        n_threads: int,
        use: Use,
        inputs: list[Tensor],
        batch_first: bool,
        h0: Tensor | None,
        c0: Tensor | None,
        outputs: list[Tensor],
        h_n: Tensor | None,
        c_n: Tensor | None,
        tapes: Tensor | None,
    ) -> None: ...
    def backward(
        self,
        pool: Pool,
        first: int,
        n_threads: int,
        use: Use,
        inputs: list[Tensor],
        batch_first: bool,
        h0: Tensor | None,
        outputs: list[Tensor],
        tapes: Tensor | None,
        dy: Tensor | None,
        dh_n: Tensor | None,
        dc_n: Tensor | None,
        dinputs: list[Tensor | None],
        dh0: Tensor | None,
        dc0: Tensor | None,
        dweights: Sequence[Tensor | None],
    ) -> None: ...
