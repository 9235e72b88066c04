# SPDX-License-Identifier: BSD-3-Clause
"""Sequences of different lengths as an argument, and their masks."""

import numpy as np

from fastrnn.util import checks


def lengths_array(who, name, lengths, B, T, least=1):
    """`lengths` as int64 of shape (B,) in [least, T]; None is T for all.

    A copy: what is made of it outlives the call.
    """
    if lengths is None:
        return np.full(B, T, np.int64)
    array = checks.integer_array(who, name, lengths)
    checks.shape(who, name, array, ("B",), (B,))
    for extreme in (array.min(), array.max()):
        if not least <= extreme <= T:
            raise ValueError(f"{who}: {name} must be in [{least}, {T}], got {extreme}")
    return array.copy()


def steps_mask(lengths, T):
    """Bool of shape (T, B): whether step t is part of sequence b."""
    return np.arange(T)[:, None] < lengths
