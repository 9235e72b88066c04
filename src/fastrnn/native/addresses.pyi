# SPDX-License-Identifier: BSD-3-Clause
# Types of addresses.pyx.  `_Array` is anything with the buffer protocol: a NumPy array.
from typing import Any, TypeAlias

_Array: TypeAlias = Any

def is_clear(array: _Array, begin: int, end: int) -> bool: ...
def offsets_of(batch_sizes: _Array, rows: int) -> _Array | None: ...
