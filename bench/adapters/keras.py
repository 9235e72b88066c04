# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of Keras 3: its layers in a ``tf.function``, with and without XLA."""

import os
from functools import partial

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf

from bench import data, models
from bench.adapters import N_STEPS, form_of
from bench.adapters.keras_weights import from_keras, of_layer, to_keras
from bench.adapters.model_side import ModelSide
from bench.case import ModelCase

LAYERS = keras.layers
# The layer and its activation.
CLASSES = {
    "lstm": (LAYERS.LSTM, "tanh"),
    "gru": (LAYERS.GRU, "tanh"),
    "rnn": (LAYERS.SimpleRNN, "tanh"),
    "rnn_relu": (LAYERS.SimpleRNN, "relu"),
}
# The most time steps that are unrolled: a longer program takes minutes to compile.
LONGEST_UNROLLED = 4


def start(n_threads, dtype):
    tf.config.threading.set_intra_op_parallelism_threads(n_threads)
    tf.config.threading.set_inter_op_parallelism_threads(n_threads)
    keras.config.set_floatx(dtype)
    return {
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "settings": {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        },
    }


def variants(case, dtype):
    if isinstance(case, ModelCase):
        make, is_short = partial(Trainer, case.model, dtype), False
    else:
        form_of(CLASSES, case)
        side = Step if case.direction == "step" else Layer
        make = partial(side, case, dtype)
        is_short = case.shape.T <= LONGEST_UNROLLED
    found = {"graph": partial(make, False), "XLA": partial(make, True)}
    if is_short:
        found["graph, unrolled"] = partial(make, False, unroll=True)
        found["XLA, unrolled"] = partial(make, True, unroll=True)
    return found


def _layer(cell, I, H, weights, **options):
    layer_class, activation = CLASSES[cell]
    layer = layer_class(H, activation=activation, **options)
    layer.build((None, None, I))
    layer.set_weights(to_keras(cell, weights))
    return layer


class Layer:
    """The side of a layer that runs whole sequences, forward or as a training step.

    Its data are batch first, as Keras's layers need them.
    """

    def __init__(self, case, dtype, jit, unroll=False):
        weights, x, dy = data.layer(case, dtype)
        layer = _layer(
            case.cell,
            case.shape.I,
            case.shape.H,
            of_layer(weights, "", 0),
            return_sequences=True,
            unroll=unroll,
        )
        self.cell, self.is_training = case.cell, case.direction == "train"
        x, dy = (tf.constant(array.transpose(1, 0, 2)) for array in (x, dy))
        self.inputs = (x, dy) if self.is_training else (x,)
        variables = [variable.value for variable in layer.trainable_variables]

        def forward(x):
            return layer(x, training=False)

        def train(x, dy):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return y, tape.gradient(y, [x, *variables], output_gradients=dy)

        self.call = tf.function(train if self.is_training else forward, jit_compile=jit)

    def run(self):
        return self.call(*self.inputs)

    def results(self):
        if not self.is_training:
            return {"y": self.run().numpy().transpose(1, 0, 2)}
        y, (dx, *grads) = self.run()
        named = from_keras(self.cell, grads)
        return {
            "y": y.numpy().transpose(1, 0, 2),
            "dx": dx.numpy().transpose(1, 0, 2),
            **{f"d{name}_l0": grad for name, grad in named.items()},
        }


class Step:
    """The side of single time steps, each from the state after the step before."""

    def __init__(self, case, dtype, jit, unroll=False):
        weights, x, _ = data.layer(case, dtype)
        _, B, I, H = case.shape
        layer = _layer(
            case.cell, I, H, of_layer(weights, "", 0), return_state=True, unroll=unroll
        )
        n_states = 2 if case.cell == "lstm" else 1
        self.x = tf.constant(x.transpose(1, 0, 2))
        self.zero = [tf.zeros((B, H), dtype) for _ in range(n_states)]
        self.state = self.zero
        self.call = tf.function(
            lambda x, state: layer(x, initial_state=state, training=False),
            jit_compile=jit,
        )

    def run(self):
        y, *self.state = self.call(self.x, self.state)
        return y

    def results(self):
        self.state = self.zero
        return {"y": np.stack([self.run().numpy() for _ in range(N_STEPS)])}


class Trainer(ModelSide):
    """The side of a model: one graph for forward, backward, clipping and Adam."""

    def __init__(self, spec, dtype, jit):
        weights, batches = data.model(spec, dtype)
        if spec.V:
            batches = [(x.T.astype("i4"), y.T.astype("i4")) for x, y in batches]
        else:
            batches = [(x.transpose(1, 0, 2), y) for x, y in batches]
        super().__init__(spec, [tuple(map(tf.constant, b)) for b in batches])
        self.spec, self.dtype = spec, dtype
        embedding = LAYERS.Embedding(spec.V, spec.E) if spec.V else None
        if spec.V:
            embedding.build((None, None))
            embedding.set_weights([weights["embedding.weight"]])
        layers = [
            _layer(
                "lstm",
                spec.H if k else spec.E,
                spec.H,
                of_layer(weights, "recurrent.", k),
                return_sequences=bool(spec.V) or k < spec.layers - 1,
                return_state=True,
            )
            for k in range(spec.layers)
        ]
        head = LAYERS.Dense(spec.classes)
        head.build((None, None, spec.H) if spec.V else (None, spec.H))
        head.set_weights([weights["head.weight"].T, weights["head.bias"]])
        parts = [*([embedding] if spec.V else []), *layers, head]
        keras_variables = [v for part in parts for v in part.trainable_variables]
        optimizer = keras.optimizers.Adam(
            models.LR,
            *models.BETAS,
            epsilon=models.EPS,
            global_clipnorm=models.CLIP_NORM if spec.V else None,
        )
        optimizer.build(keras_variables)
        variables = [variable.value for variable in keras_variables]

        def backward(inputs, targets, state):
            ends = []
            with tf.GradientTape() as tape:
                h = embedding(inputs) if spec.V else inputs
                for layer, start in zip(layers, state, strict=True):
                    h, *end = layer(h, initial_state=start, training=True)
                    ends.append(end)
                out = head(h)
                if spec.V:
                    loss = tf.reduce_mean(
                        tf.nn.sparse_softmax_cross_entropy_with_logits(targets, out)
                    )
                else:
                    loss = tf.reduce_mean(tf.square(out - targets))
            return loss, ends, tape.gradient(loss, variables)

        def step(inputs, targets, state):
            loss, ends, grads = backward(inputs, targets, state)
            optimizer.apply(grads, keras_variables)
            return loss, ends

        self.backward = tf.function(backward, jit_compile=jit)
        self.call = tf.function(step, jit_compile=jit)

    def _start(self, inputs):
        zero = tf.zeros((inputs.shape[0], self.spec.H), self.dtype)
        return [[zero, zero] for _ in range(self.spec.layers)]

    def gradients(self, inputs, targets):
        _, _, grads = self.backward(inputs, targets, self._start(inputs))
        grads = [tf.convert_to_tensor(grad).numpy() for grad in grads]
        named = {"embedding.weight": grads.pop(0)} if self.spec.V else {}
        for k in range(self.spec.layers):
            layer = from_keras("lstm", grads[3 * k : 3 * k + 3])
            named |= {f"recurrent.{n}_l{k}": grad for n, grad in layer.items()}
        return {**named, "head.weight": grads[-2].T, "head.bias": grads[-1]}

    def step(self, inputs, targets):
        loss, state = self.call(inputs, targets, self.state or self._start(inputs))
        if self.spec.V:
            self.state = state
        return loss.numpy()
