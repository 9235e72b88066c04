# SPDX-License-Identifier: BSD-3-Clause
# Types of draws.pyx.  `_Array` is anything with the buffer protocol: a NumPy array.
from typing import Any, Self, TypeAlias, final

_Array: TypeAlias = Any

@final
class Draw:
    steps: _Array | None
    rows: _Array | None
    key: int
    def __new__(
        cls,
        key: int,
        first_step: int = 0,
        first_row: int = 0,
        steps: _Array | None = None,
        rows: _Array | None = None,
        cell: int = 0,
    ) -> Self: ...
    def part(self, begin: int, place: int = 0) -> Draw: ...
