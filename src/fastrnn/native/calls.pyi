# SPDX-License-Identifier: BSD-3-Clause
# Types of calls.pyx.
from typing import Any

from fastrnn.native.core import Kernels

class Run: ...

class Plan:
    kernels: Kernels
    offsets: Any
