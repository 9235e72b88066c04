# SPDX-License-Identifier: BSD-3-Clause
"""Small arrays that tests of several rooms need."""

import numpy as np


def read_only(array):
    """A copy of an array that cannot be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


def ints(*values):
    """An array of int64, as ONNX has for shapes and axes."""
    return np.array(values, np.int64)
