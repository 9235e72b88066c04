# SPDX-License-Identifier: BSD-3-Clause
"""States of layers whose h is narrower than c, or whose initial state is learned.

Kernels' plans have both states of a cell in (B, H) elements; with a projection h takes
the first B * S of them, (B, S).
"""

import numpy as np


def widen(h, H):
    """h (cells, B, S) in arrays (cells, B, H), as plans take it."""
    n, B, S = h.shape
    slots = np.zeros((n, B * H), h.dtype)
    slots[:, : B * S] = h.reshape(n, B * S)
    return slots.reshape(n, B, H)


def narrow(layer, states):
    """States of a plan, (n_states, cells, B, H), with h in its own width."""
    S = layer._h_size
    if layer.hidden_size == S:
        return states
    _, n, B, H = states.shape
    return states[0].reshape(n, B * H)[:, : B * S].reshape(n, B, S), states[1]


def start(layer, h0, c0, B):
    """Initial states of B sequences, the learned ones where none are given.

    Returns
    -------
    h0, c0 : ndarray
    learned : list of (str, int)
        Parameter, and which of the states it is.
    """
    learned = []
    if h0 is None:
        h0 = np.repeat(layer._param["h_0"][:, None], B, axis=1)
        learned.append(("h_0", 0))
    if c0 is None and layer._states == 2:
        c0 = np.repeat(layer._param["c_0"][:, None], B, axis=1)
        learned.append(("c_0", 1))
    return h0, c0, learned


def add_learned(layer, learned, d_start):
    """Add the gradients of learned initial states, row after row."""
    if not layer._trainable:
        return
    for name, k in learned:
        layer._grad[name] += np.add.reduce(d_start[k], axis=1)


def as_state(parts):
    """A list of a state's arrays as a recurrent layer takes it."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def state_parts(state):
    """The list of a state's arrays, of what a recurrent layer gives."""
    return list(state) if isinstance(state, tuple) else [state]
