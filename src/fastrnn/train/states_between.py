# SPDX-License-Identifier: BSD-3-Clause
"""States of recurrent layers as arrays between the layers of a `Functional`.

Each is (N, hidden_size): for each layer and direction in turn h, and c of an LSTM. A
recurrent layer itself has h, or h and c, of all its layers and directions in one array.
"""

import numpy as np

from fastrnn.util import checks


def parts(state):
    """The arrays (N, hidden_size) in a state.

    Parameters
    ----------
    state : ndarray or pair of ndarray, shape (layers * directions, N, hidden_size)
    """
    pair = state if isinstance(state, tuple) else (state,)
    return [array for row in zip(*pair, strict=True) for array in row]


def joined(who, layer, arrays):
    """The state that arrays (N, hidden_size) are the parts of.

    Raises
    ------
    ValueError
        If there are not as many as the layer's state has.
    """
    kinds = layer._states
    n = kinds * layer.num_layers * (2 if layer.bidirectional else 1)
    if len(arrays) != n:
        raise ValueError(
            f"{who}: {type(layer).__name__} must be given {n} initial states after its "
            f"sequences, got {len(arrays)}"
        )
    arrays = [
        checks.float_array(who, f"state {i}", array, layer.dtype)
        for i, array in enumerate(arrays)
    ]
    if any(array.shape != arrays[k % kinds].shape for k, array in enumerate(arrays)):
        raise ValueError(
            f"{who}: the initial states of {type(layer).__name__} must have one shape, "
            f"got {', '.join(str(array.shape) for array in arrays)}"
        )
    state = tuple(np.stack(arrays[k::kinds]) for k in range(kinds))
    return state if kinds > 1 else state[0]


def joined_gradients(layer, gradients, ends):
    """The gradient of a final state from those of its parts; None for all zero.

    Parameters
    ----------
    layer : Recurrent
    gradients : list of (ndarray or None)
        Of the first of the parts; None, and those that are not there, are zero.
    ends : list of tuple of int
        Shapes of all parts.
    """
    if all(one is None for one in gradients):
        return None
    gradients = [*gradients, *[None] * (len(ends) - len(gradients))]
    whole = [
        np.zeros(shape, layer.dtype) if one is None else one
        for one, shape in zip(gradients, ends, strict=True)
    ]
    kinds = layer._states
    state = tuple(np.stack(whole[k::kinds]) for k in range(kinds))
    return state if kinds > 1 else state[0]
