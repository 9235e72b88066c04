# SPDX-License-Identifier: BSD-3-Clause
# Types of addresses.pyx.  `Array` is anything with the buffer protocol: a NumPy array.
from typing import Any

Array = Any

def is_clear(array: Array, begin: int, end: int) -> bool: ...
def offsets_of(batch_sizes: Array, rows: int) -> Array | None: ...
