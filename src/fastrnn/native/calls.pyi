# SPDX-License-Identifier: BSD-3-Clause
# Types of calls.pyx.
from typing import Any, final

from fastrnn.native.core import Kernels

QUANTIZED_LAYERS: tuple[str, ...]

@final
class Run: ...

class Plan:
    kernels: Kernels
    offsets: Any
