# SPDX-License-Identifier: BSD-3-Clause
"""Keras's recurrent layers, with their numbers and gradients on each backend."""

import numpy as np


def twins(keras, ours, name, units=5, input_size=3, **options):
    """A layer of Keras's and one of fastrnn's with the same weights, both built.

    Parameters
    ----------
    keras, ours : module
        Keras, and `fastrnn.keras`.
    name : {"LSTM", "GRU", "SimpleRNN"}
    """
    rng = np.random.default_rng(0)
    pair = [getattr(home, name)(units, **options) for home in (keras.layers, ours)]
    for layer in pair:
        layer.build((4, 6, input_size))
    weights = [
        0.5 * rng.standard_normal(w.shape).astype(w.dtype)
        for w in pair[0].cell.get_weights()
    ]
    for layer in pair:
        layer.cell.set_weights(weights)
    return pair


def outputs_and_gradients(keras, call, inputs, variables, seed=1):
    """What a call returns, and the gradients of a random sum of it.

    Parameters
    ----------
    keras : module
    call : callable
        Takes tensors, as many as `inputs`; returns a tensor or a nest of them.
    inputs : list of ndarray
    variables : list of keras.Variable

    Returns
    -------
    outputs, gradients : list of ndarray
        Gradients of the inputs, then of the variables. Zero where there is none.
    """
    outputs = []

    def loss(tensors):
        outputs[:] = keras.tree.flatten(call(*tensors))
        draw = np.random.default_rng(seed)
        total = 0
        for part in outputs:
            factor = draw.standard_normal(tuple(part.shape))
            factor = keras.ops.convert_to_tensor(factor, part.dtype)
            total = total + keras.ops.sum(part * factor)
        return total

    gradients = _GRADIENTS[keras.backend.backend()](keras, loss, inputs, variables)
    found = [keras.ops.convert_to_numpy(part) for part in outputs]
    shapes = [*(one.shape for one in inputs), *(v.shape for v in variables)]
    return found, [
        np.zeros(shape) if g is None else keras.ops.convert_to_numpy(g)
        for g, shape in zip(gradients, shapes, strict=True)
    ]


def _by_torch(keras, loss, inputs, variables):
    import torch

    tensors = [torch.from_numpy(one).requires_grad_() for one in inputs]
    sources = tensors + [v.value for v in variables]
    return torch.autograd.grad(loss(tensors), sources, allow_unused=True)


def _by_tensorflow(keras, loss, inputs, variables):
    import tensorflow

    tensors = [tensorflow.convert_to_tensor(one) for one in inputs]
    with tensorflow.GradientTape() as tape:
        for one in tensors:
            tape.watch(one)
        total = loss(tensors)
    return tape.gradient(total, tensors + [v.value for v in variables])


def _by_jax(keras, loss, inputs, variables):
    import jax

    def of(tensors, values):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return loss(tensors)

    values = [v.value for v in variables]
    tensors = [jax.numpy.asarray(one) for one in inputs]
    gradients = jax.grad(of, argnums=(0, 1))(tensors, values)
    loss(tensors)  # the outputs are tracers so far
    return [*gradients[0], *gradients[1]]


_GRADIENTS = {"torch": _by_torch, "tensorflow": _by_tensorflow, "jax": _by_jax}
