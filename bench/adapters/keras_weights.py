# SPDX-License-Identifier: BSD-3-Clause
"""Keras's weights of a recurrent layer from fastrnn's four arrays, and back."""

import numpy as np

# Keras's order of gates: each gate's place in ours.
GATES = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,), "rnn_relu": (0,)}
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def of_layer(weights, prefix, layer):
    """The four arrays of one layer of a stack, by their names without the rest."""
    return {name: weights[f"{prefix}{name}_l{layer}"] for name in NAMES}


def to_keras(cell, weights):
    """The weights of one layer, given as fastrnn's four arrays, as Keras has them."""
    gates = GATES[cell]

    def reorder(name):
        return np.concatenate([np.split(weights[name], len(gates))[k] for k in gates])

    both = reorder("bias_ih"), reorder("bias_hh")
    bias = np.stack(both) if cell == "gru" else both[0] + both[1]
    return [reorder("weight_ih").T, reorder("weight_hh").T, bias]


def from_keras(cell, arrays):
    """Keras's gradients of one layer as fastrnn has them.

    Where Keras has one bias and fastrnn has two, whose sum is Keras's, both get the
    gradient of the one.
    """
    gates = GATES[cell]
    kernel, recurrent, bias = (np.asarray(array) for array in arrays)

    def reorder(rows):
        parts = np.split(rows, len(gates))
        return np.concatenate([parts[gates.index(k)] for k in range(len(gates))])

    biases = bias if cell == "gru" else (bias, bias)
    return {
        "weight_ih": reorder(kernel.T),
        "weight_hh": reorder(recurrent.T),
        "bias_ih": reorder(biases[0]),
        "bias_hh": reorder(biases[1]),
    }
