# SPDX-License-Identifier: BSD-3-Clause
"""Weights of one Keras layer as the state dict of a fastrnn layer.

Keras computes ``x @ kernel`` where fastrnn computes ``x @ weight.T``, so kernels have
to be transposed. In Keras the gates are side by side in the columns of a kernel, in an
order of Keras's own. A recurrent layer of Keras has one bias where fastrnn's has two,
of which the second is then zero; only a GRU with ``reset_after`` has both in Keras,
too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.keras._options import cell_arguments
from fastrnn.util.typing import Array

# For each of fastrnn's gates, its place in Keras's order. The LSTM has i f g o here and
# i f c o in Keras, the GRU r z n here and z r h in Keras.
GATES = {"SimpleRNN": (0,), "LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}
CELL_BY_GATES = {len(order): cell for cell, order in GATES.items()}


def _rows(array, order):
    """An array with Keras's gates along its last axis as (G * H, ...) in our order."""
    gates = np.split(array, len(order), axis=-1)
    return np.concatenate([gates[k].T for k in order])


def _direction(who, cell, arrays, suffix):
    """The state dict of one cell from its kernel, recurrent kernel and bias, if any."""
    order = GATES[cell]
    kernel, recurrent, *bias = arrays
    width = recurrent.shape[1]
    if kernel.ndim != 2 or kernel.shape[1] != width:
        raise ValueError(
            f"{who}: the kernel must have shape (I, {width}) beside a recurrent kernel "
            f"of {recurrent.shape}, got {kernel.shape}"
        )
    state = {
        f"weight_ih{suffix}": _rows(kernel, order),
        f"weight_hh{suffix}": _rows(recurrent, order),
    }
    if not bias:
        return state
    bias = bias[0]
    if cell == "GRU" and bias.shape == (2, width):
        both = bias
    elif bias.shape == (width,):
        both = bias, np.zeros_like(bias)
    else:
        rule = f"({width},) or (2, {width})" if cell == "GRU" else f"({width},)"
        raise ValueError(
            f"{who}: the bias of a {cell} must have shape {rule}, got {bias.shape}"
        )
    state[f"bias_ih{suffix}"] = _rows(both[0], order)
    state[f"bias_hh{suffix}"] = _rows(both[1], order)
    return state


def _is_recurrent(arrays):
    """Whether arrays can be the weights of a recurrent layer of one or two directions.

    Each direction has a kernel, a recurrent kernel and perhaps a bias. A recurrent
    kernel of shape (H, G * H) tells the number of gates G, and so the cell.
    """
    if len(arrays) not in (2, 3, 4, 6) or arrays[1].ndim != 2:
        return False
    H, width = arrays[1].shape
    return H > 0 and width % H == 0 and width // H in CELL_BY_GATES


def recurrent_state(who, arrays):
    """The state dict of a recurrent layer from the arrays of one or two directions.

    Returns
    -------
    cell : {"SimpleRNN", "LSTM", "GRU"}
    state : dict of str to ndarray
    """
    H, width = arrays[1].shape
    cell = CELL_BY_GATES[width // H]
    if len(arrays) in (2, 3):
        return cell, _direction(who, cell, arrays, "_l0")
    half = len(arrays) // 2
    if arrays[half + 1].shape != arrays[1].shape:
        raise ValueError(
            f"{who}: both directions must have recurrent kernels of one shape, "
            f"got {arrays[1].shape} and {arrays[half + 1].shape}"
        )
    return cell, {
        **_direction(who, cell, arrays[:half], "_l0"),
        **_direction(who, cell, arrays[half:], "_l0_reverse"),
    }


def dense_state(arrays):
    """The state dict of a `Linear` from a kernel (I, O) and perhaps a bias (O,)."""
    state = {"weight": np.ascontiguousarray(arrays[0].T)}
    if len(arrays) == 2:
        state["bias"] = arrays[1].copy()
    return state


def layer_weights(layer: Any) -> dict[str, Array]:
    """Convert the weights of one Keras layer to fastrnn's names, orders and shapes.

    Parameters
    ----------
    layer : Keras layer or list of array_like
        A SimpleRNN, LSTM or GRU, a Bidirectional of one of these, a Dense, a
        TimeDistributed of a Dense, or an Embedding; or the list that ``get_weights()``
        of such a layer returns. The shapes in a list tell which layer it belongs to. A
        list of one array is refused, because it could belong to an Embedding or to a
        Dense without bias.

    Returns
    -------
    dict of str to ndarray
        To be given to ``load_state_dict`` of an `RNN`, `LSTM`, `GRU`, `Linear` or
        `Embedding` of the same sizes and options. Weights do not tell which functions a
        layer has, nor whether a GRU has ``reset_after``, except that a GRU whose bias
        has shape (2, 3 H) does have it.

    Raises
    ------
    ValueError
        If the layer has an option that fastrnn does not compute, or if the shapes in a
        list are those of no layer.
    TypeError
        If `layer` is neither a layer nor a list of arrays.

    Examples
    --------
    >>> kernel, recurrent = np.ones((3, 8)), np.ones((2, 8))
    >>> bias = np.arange(8.0)
    >>> state = layer_weights([kernel, recurrent, bias])
    >>> fastrnn.LSTM(3, 2).load_state_dict(state)
    >>> {name: array.shape for name, array in state.items()}
    {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 2), 'bias_ih_l0': (8,),
     'bias_hh_l0': (8,)}
    """
    who = "fastrnn.keras.layer_weights"
    if isinstance(layer, (list, tuple)):
        return _by_shapes(who, [np.asarray(array) for array in layer])
    if not hasattr(layer, "get_weights") or not hasattr(layer, "get_config"):
        raise TypeError(
            f"{who}: layer must be a Keras layer or a list of arrays, "
            f"got {type(layer).__name__}"
        )
    return _of_layer(who, layer)


def _of_layer(who, layer):
    arrays = [np.asarray(array) for array in layer.get_weights()]
    kind, config = type(layer).__name__, layer.get_config()
    if kind in ("Bidirectional", "TimeDistributed"):
        kind, config = config["layer"]["class_name"], config["layer"]["config"]
    if kind in GATES:
        # Raises if fastrnn has no arguments for an option of the layer.
        cell_arguments(who, kind, kind, config, 3)
        return recurrent_state(who, arrays)[1]
    if kind == "Dense":
        return dense_state(arrays)
    if kind == "Embedding":
        return {"weight": arrays[0].copy()}
    raise ValueError(
        f"{who}: layer must be a SimpleRNN, LSTM, GRU, Bidirectional, Dense or "
        f"Embedding, got {kind}"
    )


def _by_shapes(who, arrays):
    if len(arrays) == 2 and arrays[0].ndim == 2 and arrays[1].ndim == 1:
        return dense_state(arrays)
    if _is_recurrent(arrays):
        return recurrent_state(who, arrays)[1]
    raise ValueError(
        f"{who}: the list must be the weights of a recurrent or Dense layer, "
        f"got shapes {', '.join(str(array.shape) for array in arrays) or 'none'}"
    )
