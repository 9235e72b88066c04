# SPDX-License-Identifier: BSD-3-Clause
"""Names of the types that public functions take and give, for editors and checkers.

What a function takes is an ``ArrayLike``, NumPy's name of all that becomes an array.
What it gives is an `Array`, of float32 or float64 unless its docstring says otherwise.
"""

import os
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
# Masks go through models as bool arrays, and are None where all steps count.
Mask: TypeAlias = NDArray[Any] | None
# A text, which only those who ask for it evaluate: it would import numpy.random. So a
# file that uses it has to know `np`.
Seed: TypeAlias = "int | np.random.Generator | None"
PathLike: TypeAlias = str | os.PathLike[str]
# A recurrent layer's state: h, or (h, c), say. What a call takes, and what it gives.
StateLike: TypeAlias = ArrayLike | tuple[ArrayLike | None, ...]
State = TypeVar("State")
