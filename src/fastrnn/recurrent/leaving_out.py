# SPDX-License-Identifier: BSD-3-Clause
"""What recurrent layers leave out at random: arguments checked, and dropped weights."""

import numbers

import numpy as np

from fastrnn.util import checks

MODES = ("h", "per_gate", "candidate")


def zoneout(who, cell, value):
    """The argument as a layer keeps it, and the probabilities (of c, of h).

    Parameters
    ----------
    cell : celltable.Cell
    value : float or (float, float)
        A pair (p_c, p_h) is for cells that have c; one number is for all states.
    """
    if isinstance(value, tuple | list):
        if cell.n_states == 1:
            raise ValueError(
                f"{who}: zoneout must be one number, since the state is h alone, got "
                f"{value!r}"
            )
        if len(value) != 2:
            raise ValueError(
                f"{who}: zoneout must be a number or a pair (p_c, p_h), got {value!r}"
            )
        p_c, p_h = (checks.probability(who, "zoneout", one) for one in value)
        return (p_c, p_h), (p_c, p_h)
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{who}: zoneout must be a number or a pair (p_c, p_h), got {value!r}"
        )
    p = checks.probability(who, "zoneout", value)
    return p, (p if cell.n_states == 2 else 0.0, p)


def recurrent_mode(who, cell, mode):
    """Refuse a mode of recurrent dropout that the cell does not have."""
    checks.choice(who, "recurrent_dropout_mode", mode, MODES)
    if mode == "candidate" and "candidate" not in cell.options:
        raise ValueError(
            f"{who}: recurrent_dropout_mode 'candidate' is for LSTM and GRU, whose "
            f"candidate is added to the state, got {mode!r}"
        )
    return mode


class DroppedWeights:
    """Recurrent weights of which a call in training leaves some out.

    One choice holds for the whole call. The weights that it uses, in a copy of the
    layer's, and the gradients with respect to them lie where the layer's own lie in
    their buffers, so that one start serves for all.

    Parameters
    ----------
    runtime : Runtime
    plan : arrays.ArrayPlan
        Its kernels and threads do the work.
    p : float
    seeds : ndarray of int64
        Of each cell's choices.

    Attributes
    ----------
    parameters : ndarray, 1-D
        The weights that are used.
    """

    def __init__(self, runtime, plan, p, seeds):
        self._runtime, self._p, self._seeds = runtime, p, seeds
        self._start, self._end = runtime.start, runtime.start + runtime.n_cell_weights
        self.parameters = np.empty(self._end, runtime.dtype)
        own = slice(self._start, self._end)
        self.parameters[own] = runtime.parameters[own]
        self._drop(plan, self.parameters)

    def _drop(self, plan, buffer):
        """Set those that are left out to zero, and scale the others."""
        for cell, seed in enumerate(self._seeds):
            R = self._runtime.part_of(buffer, "weight_hh", cell).ravel()
            plan.kernels.dropout(plan.n_threads, int(seed), self._p, R, R)

    def new_gradients(self):
        """A buffer for gradients with respect to the weights that are used."""
        return np.zeros(self._end, self._runtime.dtype)

    def add(self, plan, found, grads):
        """Add gradients with respect to the layer's own weights to `grads`."""
        self._drop(plan, found)
        own = slice(self._start, self._end)
        grads[own] += found[own]
