# SPDX-License-Identifier: BSD-3-Clause
# Types of xla.pyx, which is built only where XLA's headers are: see setup.py.
from collections.abc import Callable
from typing import Any

import numpy as np

VERSION: tuple[int, int]

def target() -> Any: ...
def set_function(
    function: Callable[[bytes, list[np.ndarray], list[np.ndarray]], None],
) -> None: ...
