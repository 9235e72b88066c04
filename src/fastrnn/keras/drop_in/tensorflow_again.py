# SPDX-License-Identifier: BSD-3-Clause
"""Recurrences by TensorFlow's own operations, for what the kernels do not compute.

A second derivative, and a derivative in forward mode, which TensorFlow makes of one, is
that of the gradient that the functions here compute again.
"""

import tensorflow as tf
from keras import activations
from keras.src.backend.tensorflow.rnn import rnn
from tensorflow.python.eager import forwardprop_util

from fastrnn.native import celltable

_FUNCTIONS = {
    "affine": activations.linear,
    "elu": activations.elu,
    "gelu": activations.gelu,
    "hard_sigmoid": activations.hard_sigmoid,
    "hard_tanh": activations.hard_tanh,
    "leaky_relu": activations.leaky_relu,
    "relu": activations.relu,
    "sigmoid": activations.sigmoid,
    "softplus": activations.softplus,
    "softsign": activations.softsign,
    "tanh": activations.tanh,
}


def run(form, x, h0, c0, weights, mask, hold):
    """The results of `tensorflow.run`, which has the arguments and results, in a list.

    The functions of the form have Keras's parameters, as `forms.form` gives them.
    """
    states = [h0, c0] if form.cell == "lstm" else [h0]
    zero = tf.zeros((tf.shape(x)[0], form.hidden_size), x.dtype)
    states = [zero if state is None else state for state in states]
    step = _step(form, weights)
    _, y, states = rnn(step, x, states, mask=mask, zero_output_for_mask=not hold)
    return [y, *states]


def gradient_of_gradient(form, parts, mask, hold, dresults, seconds):
    """Differentiate the gradients that a recurrence has for gradients of its results.

    Parameters
    ----------
    form, mask, hold
        As of `tensorflow.run`.
    parts : list of (Tensor or None)
        x, h0, c0, then the weights.
    dresults : list of Tensor
        Gradients of the results.
    seconds : list of Tensor
        Gradients of the gradients of those `parts` that are there.

    Returns
    -------
    list of Tensor
        The gradients of those `parts` that are there, then those of `dresults`.
    """
    inputs = [part for part in parts if part is not None]
    # An accumulator of forward mode that waits for this result hides from tapes what is
    # computed meanwhile, unless its state is put aside.
    with forwardprop_util.push_forwardprop_state(), tf.GradientTape() as outer:
        outer.watch([*inputs, *dresults])
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            x, h0, c0, *weights = parts
            results = run(form, x, h0, c0, weights, mask, hold)
        found = inner.gradient(results, inputs, dresults)
    zero = tf.UnconnectedGradients.ZERO  # a linear function has no second derivative
    return outer.gradient(found, [*inputs, *dresults], seconds, zero)


def _step(form, weights):
    """The function of one step, from x_t and the states to h_t and the states."""
    W, R = (tf.transpose(weight) for weight in weights[:2])
    b_ih, b_hh = weights[2:] or (None, None)
    names = celltable.cell(form.cell).activations
    if form.activations is not None:
        names = [name for name, _, _ in form.activations]
    functions = [_FUNCTIONS[name] for name in names]

    def rnn_step(x, states):
        h = functions[0](_affine(x, W, b_ih) + _affine(states[0], R, b_hh))
        return h, [h]

    def lstm_step(x, states):
        h, c = states
        gates = tf.split(_affine(x, W, b_ih) + _affine(h, R, b_hh), 4, axis=1)
        i, f, g, o = (
            function(gate) for function, gate in zip(functions, gates, strict=False)
        )
        c = f * c + i * g
        h = o * functions[4](c)
        return h, [h, c]

    def gru_step(x, states):
        h = states[0]
        rx, zx, nx = tf.split(_affine(x, W, b_ih), 3, axis=1)
        Rr, Rz, Rn = tf.split(R, 3, axis=1)
        br, bz, bn = (None,) * 3 if b_hh is None else tf.split(b_hh, 3)
        r = functions[0](rx + _affine(h, Rr, br))
        z = functions[1](zx + _affine(h, Rz, bz))
        nh = _affine(r * h, Rn, bn) if form.reset_before else r * _affine(h, Rn, bn)
        h = z * h + (1 - z) * functions[2](nx + nh)
        return h, [h]

    return {"lstm": lstm_step, "gru": gru_step}.get(form.cell, rnn_step)


def _affine(x, W, b):
    # Zeros in place of no bias would not do: in the gradient of the gradient of a loop
    # TensorFlow's optimiser replaces their sum by a tensor that is never computed.
    return x @ W if b is None else x @ W + b
