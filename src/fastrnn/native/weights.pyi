# SPDX-License-Identifier: BSD-3-Clause
# Types of weights.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from typing import Any

from fastrnn.native.core import Kernels, Options

Array = Any

class Room: ...
class Memory: ...

class Use:
    def keep_forward(self) -> None: ...

class MemoryPool:
    held: int
    def __init__(self, most: int) -> None: ...
    def take(self, n_bytes: int) -> Memory: ...

class Layout:
    cell: int
    n_layers: int
    n_directions: int
    n_cells: int
    n_states: int
    I: int
    H: int
    S: int
    merged: bool
    def __init__(
        self,
        cell: str,
        I: int,
        H: int,
        n_layers: int,
        n_directions: int,
        bias: bool,
        options: Options | None = None,
        merged: bool = False,
        clip_value: float = 0,
        clip_norm: float = 0,
    ) -> None: ...

class Packed:
    forward: Memory | None
    backward: Memory | None

class Packer:
    current: list[Packed | None]
    def __init__(self, layout: Layout, pool: MemoryPool) -> None: ...
    def take(
        self,
        kernels: Kernels,
        n_threads: int,
        parameters: Array,
        start: int,
        with_backward: bool,
    ) -> Use | None: ...
    def renew(
        self,
        kernels: Kernels,
        n_threads: int,
        parameters: Array,
        start: int,
        with_backward: bool,
    ) -> Use: ...
