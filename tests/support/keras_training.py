# SPDX-License-Identifier: BSD-3-Clause
"""Training of a model of Keras's and of the one that was read from its file."""

import numpy as np
import tolerances
from keras_models import run
from peers import close

import fastrnn


def trained(keras, theirs, ours, *inputs, n_terms=3000):
    """Outputs, and losses before and after one step of training, are Keras's.

    Where Keras has one bias, ours learns with the first of its two, or the sum of both
    would move twice as far.
    """
    x = list(inputs) if len(inputs) > 1 else inputs[0]
    expected = run(keras, theirs, x)
    close(ours.eval()(*inputs), expected, n_terms)
    target = np.random.default_rng(6).standard_normal(expected.shape).astype("f")
    theirs.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    optimizer = fastrnn.SGD(ours.train(), 0.1)
    second = [
        grad
        for name, grad in ours.grads.items()
        if "bias_hh" in name and not ours.parameters[name].any()
    ]
    for _ in range(2):
        loss, dy = fastrnn.mse_loss(ours(*inputs), target)
        optimizer.zero_grad()
        ours.backward(dy)
        for grad in second:
            grad[...] = 0
        optimizer.step()
        found = float(theirs.train_on_batch(x, target))
        assert abs(loss - found) <= 2 * tolerances.relative("float32", n_terms) * found
