# SPDX-License-Identifier: BSD-3-Clause
"""Sequences of different lengths as an argument, their masks, and states as lists."""

import numpy as np

from fastrnn import _check


def lengths_array(who, name, lengths, B, T, least=1):
    """`lengths` as int64 of shape (B,) in [least, T]; None is T for all.

    A copy: what is made of it outlives the call.
    """
    if lengths is None:
        return np.full(B, T, np.int64)
    array = _check.integer_array(who, name, lengths)
    _check.shape(who, name, array, ("B",), (B,))
    for extreme in (array.min(), array.max()):
        if not least <= extreme <= T:
            raise ValueError(f"{who}: {name} must be in [{least}, {T}], got {extreme}")
    return array.copy()


def steps_mask(lengths, T):
    """Bool of shape (T, B): whether step t is part of sequence b."""
    return np.arange(T)[:, None] < lengths


def as_state(parts):
    """A list of a state's arrays as a recurrent layer takes it."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def state_parts(state):
    """The list of a state's arrays, of what a recurrent layer gives."""
    return list(state) if isinstance(state, tuple) else [state]
