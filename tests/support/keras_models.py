# SPDX-License-Identifier: BSD-3-Clause
"""Keras models with random weights, their files and results."""

import warnings

import numpy as np

import fastrnn

T, B, I, H = 6, 4, 3, 5
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
OURS = {"SimpleRNN": fastrnn.RNN, "LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU}


def made(keras, layers, shape=(None, I), dtype="float32"):
    """A Sequential model with random weights everywhere, biases too."""
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers])
    rng = np.random.default_rng(4)
    weights = [0.5 * rng.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    return model


def saved(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .h5 is called legacy
        model.save(path)
    return path


def run(keras, model, x):
    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(x, training=False)))
