# SPDX-License-Identifier: BSD-3-Clause
"""Checks of the arrays that a recurrent layer is called with, forward and backward.

All of them take the name of the layer or of its method as `who`, and raise `ValueError`
where a shape is wrong and `TypeError` where an argument is no array of real numbers.
"""

import numpy as np

from fastrnn.recurrent import states
from fastrnn.util import checks


def sequences(who, name, value, dtype, batch_first, width_name, width, outer=None):
    """Check an array of sequences, and give it the axis B if it has none.

    Parameters
    ----------
    value : array_like, shape (T, B, width), or (T, width) if unbatched
        (B, T, width) if `batch_first`.
    width_name : str
        What error messages call the width.
    outer : tuple of int, optional
        The axes before the width where they are known; (T,) for an unbatched array.

    Returns
    -------
    array : ndarray, three axes
    unbatched : bool
        Whether `value` has no axis B.
    """
    array = checks.float_array(who, name, value, dtype)
    unbatched = len(outer) == 1 if outer else array.ndim == 2
    axes = ("T",) if unbatched else ("B", "T") if batch_first else ("T", "B")
    letters = (*axes, width_name)
    checks.shape(who, name, array, letters, (*(outer or [None] * len(axes)), width))
    checks.not_empty(who, name, array, letters)
    if unbatched:
        array = array[None] if batch_first else array[:, None]
    return array, unbatched


def state(who, names, value, runtime, B, unbatched):
    """Check a state, or the gradient of one.

    Parameters
    ----------
    names : sequence of str
        What error messages call the arrays of the state.
    value : array_like, tuple of array_like, or None
        A tuple for cells that have more than h. Each array has the shape (num_layers *
        directions, B, width), without B if `unbatched`, and may be None in a tuple.

    Returns
    -------
    list of (ndarray or None)
        Of each state, None for what was not given.
    """
    if value is None:
        return [None] * runtime.n_states
    n_states = runtime.n_states
    if n_states == 1:
        value = (value,)
    elif not isinstance(value, (tuple, list)) or len(value) != n_states:
        came = type(value).__name__
        if isinstance(value, (tuple, list)):
            came += f" of length {len(value)}"
        form = "a pair" if n_states == 2 else f"a tuple of {n_states}"
        raise TypeError(f"{who}: {in_words(names)} must come as {form}, got {came}")
    arrays = []
    for name, part in zip(names, value, strict=True):
        what, width = "hidden_size", runtime.hidden_size
        if not arrays and runtime.is_narrow:
            what, width = "proj_size", runtime.h_size
        letters = ("num_layers * directions", "B", what)
        sizes = (runtime.n_cells, B, width)
        if unbatched:
            letters, sizes = letters[::2], sizes[::2]
        if part is not None:
            part = checks.float_array(who, name, part, runtime.dtype)
            checks.shape(who, name, part, letters, sizes)
            part = part.reshape(-1, B, width)
        arrays.append(part)
    return arrays


def in_words(names):
    """Names as an error lists them: "h0, c0 and n0"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def beside_h(parts):
    """The states beside h as one array: None where all are, zero where some are."""
    given = [part for part in parts[1:] if part is not None]
    if not given:
        return None
    if len(parts) == 2:
        return given[0][None]
    return np.stack([np.zeros_like(given[0]) if p is None else p for p in parts[1:]])


def state_before(who, state, B):
    """The state, a list, that a stateful layer goes on from with B sequences."""
    parts = states.state_parts(state)
    found = parts[0].shape[1]
    if found != B:
        raise ValueError(
            f"{who}: x must have B = {found}, as the state of the call before has, "
            f"got {B}; reset_state() begins anew"
        )
    return parts


def gradients(who, call, batch_first, dy, d_state):
    """Check what the backward of a call is given.

    Returns
    -------
    dy : ndarray or None
        Of sequences with the axis B.
    dh_n, dc_n : ndarray or None
        Of h, and of the states beside h, one array.
    """
    runtime = call.runtime
    names = [f"d_{letter}_n" for letter in runtime.cell.states]
    names = names if len(names) > 1 else ("d_state",)
    parts = state(who, names, d_state, runtime, call.B, call.unbatched)
    dh_n, dc_n = parts[0], beside_h(parts)
    if dy is None:
        if dh_n is None and dc_n is None:
            raise ValueError(f"{who}: dy and d_state must not both be None")
        return None, dh_n, dc_n
    width_name, width = "directions * hidden_size", runtime.y_size
    if call.sequences:
        outer = (call.B, call.T) if batch_first else (call.T, call.B)
        outer = (call.T,) if call.unbatched else outer
        dy, _ = sequences(
            who, "dy", dy, runtime.dtype, batch_first, width_name, width, outer
        )
    else:
        dy = checks.float_array(who, "dy", dy, runtime.dtype)
        letters, sizes = ("B", width_name), (call.B, width)
        axes = slice(1 if call.unbatched else 0, None)
        checks.shape(who, "dy", dy, letters[axes], sizes[axes])
    return dy, dh_n, dc_n


def check_reset(who, mask, state):
    """`mask` as an array, once it is known to say which rows of `state` to reset."""
    mask = checks.as_array(who, "mask", mask)
    if mask.dtype != bool:
        raise TypeError(f"{who}: mask must be bool, got dtype {mask.dtype}")
    if state is None:
        raise ValueError(f"{who}: mask needs a state, and there is none")
    B = states.state_parts(state)[0].shape[1]
    checks.shape(who, "mask", mask, ("B",), (B,))
    return mask
