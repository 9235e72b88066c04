# SPDX-License-Identifier: BSD-3-Clause
"""Initial and last states: their widths, and those that are learned.

The kernels hold both states of a cell, h and c, in B * H elements each. A projection
makes h narrower, S instead of H: it then takes the first B * S of its elements.
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
    widths = (runtime.h_size, runtime.hidden_size)[: runtime.n_states]
    return [
        np.zeros((runtime.n_cells, n_rows, width), runtime.dtype) for width in widths
    ]


def learned(runtime, h0, c0, B):
    """The initial states of B sequences, with learned ones in place of None.

    Returns
    -------
    h0, c0 : ndarray
        c0 stays None for cells that have h alone.
    used : list of (str, int)
        The learned states that are used: the parameter's name, and which of the arrays
        of a state it stands for.
    """
    used = []
    if h0 is None:
        h0 = np.repeat(runtime.named["h_0"][:, None], B, axis=1)
        used.append(("h_0", 0))
    if c0 is None and runtime.n_states == 2:
        c0 = np.repeat(runtime.named["c_0"][:, None], B, axis=1)
        used.append(("c_0", 1))
    return h0, c0, used


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
