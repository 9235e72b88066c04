# SPDX-License-Identifier: BSD-3-Clause
"""Initial and last states: their widths, and those that are learned.

The kernels hold each state of a cell, h, c and others, in B * H elements. A projection
makes h narrower, S instead of H: it then takes the first B * S of its elements.

In calls the states beside h are one array of shape (n_states - 1, cells, B, H), for
which c stands in names: c0, c_n, dc_n.
"""

import numpy as np


def widen(h, H):
    """Put h of shape (cells, B, S) into an array (cells, B, H), as the kernels want."""
    n, B, S = h.shape
    slots = np.zeros((n, B * H), h.dtype)
    slots[:, : B * S] = h.reshape(n, B * S)
    return slots.reshape(n, B, H)


def narrow(states, S):
    """h of shape (cells, B, S) and c of shape (cells, B, H) from the kernels' array.

    Parameters
    ----------
    states : ndarray, shape (2, cells, B, H)
    S : int
        Width of h.
    """
    _, n, B, H = states.shape
    return states[0].reshape(n, B * H)[:, : B * S].reshape(n, B, S), states[1]


def zeros(runtime, n_rows):
    """A list of the arrays of a state of `n_rows` rows, all zero."""
    widths = [runtime.h_size] + [runtime.hidden_size] * (runtime.n_states - 1)
    return [
        np.zeros((runtime.n_cells, n_rows, width), runtime.dtype) for width in widths
    ]


def split(states):
    """h, and the states beside h as one array, None for a cell that has none.

    Parameters
    ----------
    states : ndarray, shape (n_states, cells, B, H)
    """
    return states[0], states[1:] if len(states) > 1 else None


def of_cells(part, cells):
    """A state of some cells, of those of all cells; c likewise, and None for None."""
    return None if part is None else np.ascontiguousarray(part[..., cells, :, :])


def listed(h, c):
    """The states of a cell, h first, from h and those beside h, which may be None."""
    return [h] if c is None else [h, *c]


def learned(runtime, given, B):
    """The initial states of B sequences, with learned ones in place of None.

    Parameters
    ----------
    given : list of (ndarray or None)
        Of each state, h first.

    Returns
    -------
    given : list of ndarray
    used : list of (str, int)
        The learned states that are used: the parameter's name, and which of the arrays
        of a state it stands for.
    """
    found, used = list(given), []
    for k, letter in enumerate(runtime.cell.states):
        if found[k] is None:
            name = f"{letter}_0"
            found[k] = np.repeat(runtime.named[name][:, None], B, axis=1)
            used.append((name, k))
    return found, used


def add_learned(runtime, used, d_start):
    """Add the gradients of the initial states to those of the learned parameters."""
    for name, k in used:
        total = np.add.reduce(d_start[k], axis=1, dtype=np.float64)
        runtime.named_grads[name] += total.astype(runtime.dtype)


def as_state(parts):
    """The state that a recurrent layer takes, from the list of its arrays."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def state_parts(state):
    """The list of the arrays of a state that a recurrent layer has returned."""
    return list(state) if isinstance(state, tuple) else [state]
