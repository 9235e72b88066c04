# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of programs of Keras 3, on the backend that KERAS_BACKEND names.

With the variable FASTRNN_BENCH_ACCELERATE the program has the one line that lets its
layers run on fastrnn's kernels; otherwise Keras's own run.
"""

import os
from functools import partial

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["JAX_PLATFORMS"] = "cpu"

import keras
import numpy as np

from bench import data, models, programs
from bench.adapters.keras_weights import from_keras, of_layer, to_keras
from bench.adapters.model_side import ProgramSide
from bench.case import ProgramCase

CASES = (ProgramCase,)
BACKEND = keras.backend.backend()
ACCELERATES = "FASTRNN_BENCH_ACCELERATE" in os.environ

if BACKEND == "tensorflow":
    import tensorflow as library
elif BACKEND == "torch":
    import torch as library
else:
    import jax as library

if ACCELERATES:
    import fastrnn
    import fastrnn.keras


def start(n_threads, dtype):
    keras.config.set_floatx(dtype)
    if BACKEND == "tensorflow":
        library.config.threading.set_intra_op_parallelism_threads(n_threads)
        library.config.threading.set_inter_op_parallelism_threads(n_threads)
    elif BACKEND == "torch":
        library.set_num_threads(n_threads)
    else:  # JAX takes its number of threads from the CPUs that the process may use
        library.config.update("jax_enable_x64", dtype == "float64")
    versions = {"keras": keras.__version__, BACKEND: library.__version__}
    if ACCELERATES:
        fastrnn.set_num_threads(n_threads)
        versions["fastrnn"] = fastrnn.__version__
    return {"versions": versions, "settings": {"backend": BACKEND}}


def variants(case, dtype):
    name = "accelerated" if ACCELERATES else "plain"
    return {name: partial(Program, case.program, dtype)}


class Program(ProgramSide):
    """The side of a program, with Keras's layers or accelerated."""

    def __init__(self, spec, dtype):
        weights, batches = data.model(spec, dtype)
        super().__init__(spec, batches)
        self.spec = spec
        layer_class = getattr(keras.layers, programs.LAYERS[spec.cell])
        self.model = keras.Sequential(
            [
                keras.Input((spec.T, spec.E), spec.B),
                *(
                    layer_class(spec.H, return_sequences=k < spec.layers - 1)
                    for k in range(spec.layers)
                ),
                keras.layers.Dense(spec.classes),
            ]
        )
        for k in range(spec.layers):
            own = of_layer(weights, "recurrent.", k)
            self.model.layers[k].set_weights(to_keras(spec.cell, own))
        head = weights["head.weight"].T, weights["head.bias"]
        self.model.layers[-1].set_weights(head)
        if ACCELERATES:
            fastrnn.keras.accelerate(self.model)  # the one line
        self._compile()

    def _compile(self):
        adam = keras.optimizers.Adam(programs.LR, *models.BETAS, epsilon=models.EPS)
        self.model.compile(loss="mse", optimizer=adam)

    def predict(self, inputs):
        return self.model.predict_on_batch(inputs)

    def gradients(self, inputs, targets):
        """By how much a step of plain gradient descent, with the rate 1, changes them.

        That is what every backend can tell in the same words.
        """
        before = self.model.get_weights()
        self.model.compile(loss="mse", optimizer=keras.optimizers.SGD(1.0))
        self.model.train_on_batch(inputs, targets)
        after = self.model.get_weights()
        changes = [np.subtract(*pair) for pair in zip(before, after, strict=True)]
        self.model.set_weights(before)
        self._compile()
        named = {"head.weight": changes[-2].T, "head.bias": changes[-1]}
        for k in range(self.spec.layers):
            layer = from_keras(self.spec.cell, changes[3 * k : 3 * k + 3])
            named |= {f"recurrent.{n}_l{k}": change for n, change in layer.items()}
        return named

    def step(self, inputs, targets):
        return self.model.train_on_batch(inputs, targets)
