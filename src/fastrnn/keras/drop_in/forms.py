# SPDX-License-Identifier: BSD-3-Clause
"""Which cell of the kernels a recurrent layer of Keras is, and its weights for them."""

import keras
from keras import activations, ops

from fastrnn.recurrent.pure import Form

# The cell of the kernels, Keras's class of cell, and for each of the kernels' gates its
# place in Keras's order. Gates are i f g o here and i f c o in Keras, and r z n here
# and z r h in Keras.
_KINDS = (
    (keras.layers.LSTM, "lstm", keras.layers.LSTMCell, (0, 1, 2, 3)),
    (keras.layers.GRU, "gru", keras.layers.GRUCell, (1, 0, 2)),
    (keras.layers.SimpleRNN, "rnn", keras.layers.SimpleRNNCell, (0,)),
)
# The kernels' functions with the parameters alpha and beta, by the names that they have
# in keras.activations and, but for the gelu, which is another there, in keras.ops.
_NAMED = {
    "elu": ("elu", 1.0, 0.0),
    "gelu": ("gelu", 0.0, 0.0),
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "hard_tanh": ("hard_tanh", 0.0, 0.0),
    "leaky_relu": ("leaky_relu", 0.2, 0.0),
    "linear": ("affine", 1.0, 0.0),
    "relu": ("relu", 0.0, 0.0),
    "sigmoid": ("sigmoid", 0.0, 0.0),
    "softplus": ("softplus", 0.0, 0.0),
    "softsign": ("softsign", 0.0, 0.0),
    "tanh": ("tanh", 0.0, 0.0),
}
# By the id, since a user's activation may be an object that has no hash.
_FUNCTIONS = {
    id(getattr(home, name)): found
    for home in (activations, ops)
    for name, found in _NAMED.items()
    if hasattr(home, name) and (home, name) != (ops, "gelu")
}


def kind(layer):
    """The kernels' name of a layer's cell, Keras's class of it, the order of gates."""
    return next(row[1:] for row in _KINDS if isinstance(layer, row[0]))


def functions(layer):
    """The activations of a layer by the names of its arguments."""
    cell = layer.cell
    if isinstance(layer, keras.layers.SimpleRNN):
        return {"activation": cell.activation}
    return {
        "activation": cell.activation,
        "recurrent_activation": cell.recurrent_activation,
    }


def is_known(function):
    """Whether the kernels have this activation of Keras's."""
    return id(function) in _FUNCTIONS


def form(layer):
    """The `Form` of a layer that has been built and whose activations are known."""
    cell, (name, _, order) = layer.cell, kind(layer)
    of_candidate = _FUNCTIONS[id(cell.activation)]
    if name == "rnn":
        own = (of_candidate,)
        plain = of_candidate[0] in ("tanh", "relu")
        name = "rnn_relu" if of_candidate[0] == "relu" else "rnn_tanh"
        reset_before = False
    else:
        gate = _FUNCTIONS[id(cell.recurrent_activation)]
        if name == "lstm":  # i f g o, and that of c_t
            own = (gate, gate, of_candidate, gate, of_candidate)
        else:  # r z n
            own = (gate, gate, of_candidate)
        plain = gate[0] == "sigmoid" and of_candidate[0] == "tanh"
        reset_before = name == "gru" and not cell.reset_after
    input_size, width = cell.kernel.shape
    return Form(
        name,
        input_size,
        width // len(order),
        cell.compute_dtype,
        cell.bias is not None,
        None if plain and not reset_before else own,
        reset_before,
    )


def rows(array, order):
    """An array with Keras's gates along its last axis, as (G * H, ...) in our order."""
    found = ops.convert_to_tensor(array)
    found = ops.transpose(found) if len(found.shape) > 1 else found
    if is_in_order(order):
        return found
    gates = ops.split(found, len(order), axis=0)
    return ops.concatenate([gates[k] for k in order], axis=0)


def is_in_order(order):
    """Whether Keras has the gates of a cell in the order of the kernels."""
    return order == tuple(range(len(order)))


def weights(layer, rows):
    """The weights of a layer in PyTorch's layout and order of gates, differentiable.

    Parameters
    ----------
    layer : keras.layers.LSTM, GRU or SimpleRNN
    rows : callable
        The function above, or one like it of the backend.

    Returns
    -------
    list of tensor
        weight_ih (G * H, I), weight_hh (G * H, H); and with a bias bias_ih and bias_hh
        (G * H,), of which the second is zero where Keras has one bias.
    """
    cell, order = layer.cell, kind(layer)[2]
    found = [rows(cell.kernel, order), rows(cell.recurrent_kernel, order)]
    if cell.bias is None:
        return found
    if len(cell.bias.shape) == 2:  # of a GRU with reset_after
        bias = ops.convert_to_tensor(cell.bias)
        return [*found, rows(bias[0], order), rows(bias[1], order)]
    found.append(rows(cell.bias, order))
    return [*found, ops.zeros(cell.bias.shape, dtype=cell.compute_dtype)]
