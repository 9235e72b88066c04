# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of JAX: ``lax.scan`` under ``jit``.

The product of x with the input weights is computed for all time steps at once. JAX
takes its number of threads from the CPUs that the process may run on.
"""

import os
from functools import partial

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jaxlib
import numpy as np
from jax import lax, nn
from jax import numpy as jnp

from bench import data, models
from bench.adapters import N_STEPS, form_of
from bench.adapters.model_side import ModelSide
from bench.case import ModelCase

UNROLLS = {"scan": 1, "scan, 4 steps a turn": 4}


def start(n_threads, dtype):
    jax.config.update("jax_enable_x64", dtype == "float64")
    return {
        "versions": {"jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "settings": {"devices": [str(device) for device in jax.devices()]},
    }


def variants(case, dtype):
    if isinstance(case, ModelCase):
        make = partial(Trainer, case.model, dtype)
        return {name: partial(make, unroll) for name, unroll in UNROLLS.items()}
    form_of(CELLS, case)
    if case.direction == "step":
        return {
            "one step": partial(Step, case, dtype, partial(_sequence, case.cell, 1))
        }
    return {
        name: partial(Layer, case, dtype, partial(_sequence, case.cell, unroll))
        for name, unroll in UNROLLS.items()
    }


def _lstm(p, gx, h, c):
    i, f, g, o = jnp.split(gx + h @ p["weight_hh"].T, 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def _gru(p, gx, h):
    rx, zx, nx = jnp.split(gx, 3, axis=-1)
    rh, zh, nh = jnp.split(h @ p["weight_hh"].T + p["bias_hh"], 3, axis=-1)
    z = nn.sigmoid(zx + zh)
    return ((1 - z) * jnp.tanh(nx + nn.sigmoid(rx + rh) * nh) + z * h,)


def _rnn(p, gx, h, activation=jnp.tanh):
    return (activation(gx + h @ p["weight_hh"].T),)


CELLS = {
    "lstm": (_lstm, 2),
    "gru": (_gru, 1),
    "rnn": (_rnn, 1),
    "rnn_relu": (partial(_rnn, activation=nn.relu), 1),
}


def _zeros(cell, B, H, dtype):
    return tuple(jnp.zeros((B, H), dtype) for _ in range(CELLS[cell][1]))


def _sequence(cell, unroll, p, x, state):
    """y (T, B, H) and the last state of one layer; `p` has names without ``_l0``."""
    step = CELLS[cell][0]
    gx = x @ p["weight_ih"].T + p["bias_ih"]
    if cell != "gru":  # a GRU multiplies b_hh by r, so `_gru` adds it
        gx = gx + p["bias_hh"]

    def body(state, gx_t):
        state = step(p, gx_t, *state)
        return state, state[0]

    state, y = lax.scan(body, state, gx, unroll=unroll)
    return y, state


def _layer_weights(weights, prefix="", layer=0):
    start, end = len(prefix), f"_l{layer}"
    return {
        name[start:].removesuffix(end): value
        for name, value in weights.items()
        if name.startswith(prefix) and name.endswith(end)
    }


def _put(tree):
    return jax.tree.map(jnp.asarray, tree)


class Layer:
    """The side of a layer that runs whole sequences, forward or as a training step.

    ``sequence(p, x, state)`` returns y and the last state, a tuple of arrays.
    """

    def __init__(self, case, dtype, sequence):
        weights, x, dy = data.layer(case, dtype)
        self.p, self.x, self.dy = _put((_layer_weights(weights), x, dy))
        state = _zeros(case.cell, case.shape.B, case.shape.H, dtype)
        self.is_training = case.direction == "train"

        def forward(p, x):
            return sequence(p, x, state)[0]

        def train(p, x, dy):
            y, pull = jax.vjp(forward, p, x)
            return y, *pull(dy)

        self.call = jax.jit(train if self.is_training else forward)

    def run(self):
        inputs = (self.p, self.x, *((self.dy,) if self.is_training else ()))
        return jax.block_until_ready(self.call(*inputs))

    def results(self):
        if not self.is_training:
            return {"y": np.asarray(self.run())}
        y, grads, dx = jax.tree.map(np.asarray, self.run())
        return {"y": y, "dx": dx, **{f"d{k}_l0": grad for k, grad in grads.items()}}


class Step:
    """The side of single time steps, each from the state after the step before."""

    def __init__(self, case, dtype, sequence):
        weights, x, _ = data.layer(case, dtype)
        p, self.x = _put((_layer_weights(weights), x))
        self.zero = _zeros(case.cell, case.shape.B, case.shape.H, dtype)
        self.state = self.zero
        # The weights are constants of the compiled program, so that the compiler may
        # lay them out as it likes.
        self.call = jax.jit(lambda x, state: sequence(p, x, state))

    def run(self):
        y, self.state = jax.block_until_ready(self.call(self.x, self.state))
        return y

    def results(self):
        self.state = self.zero
        steps = [np.asarray(self.run()) for _ in range(N_STEPS)]
        return {"y": np.concatenate(steps)}


def _adam(p, grads, moments, n):
    b1, b2 = models.BETAS
    m, v = moments
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
    rate, root = models.LR / (1 - b1**n), 1 / jnp.sqrt(1 - b2**n)
    p = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + models.EPS), p, m, v
    )
    return p, (m, v)


def _clip(grads):
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    scale = jnp.minimum(1, models.CLIP_NORM / norm)
    return jax.tree.map(lambda g: g * scale, grads)


class Trainer(ModelSide):
    """The side of a model: one program for forward, backward, clipping and Adam."""

    def __init__(self, spec, dtype, unroll):
        weights, batches = data.model(spec, dtype)
        super().__init__(spec, _put(batches))
        self.spec, self.dtype, self.p = spec, dtype, _put(weights)
        self.moments = _put([{k: np.zeros_like(w) for k, w in weights.items()}] * 2)
        self.n = 0

        def loss_of(p, inputs, targets, state):
            h = p["embedding.weight"][inputs] if spec.V else inputs
            last = []
            for k in range(spec.layers):
                layer = _layer_weights(p, "recurrent.", k)
                h, end = _sequence("lstm", unroll, layer, h, state[k])
                last.append(end)
            if not spec.V:
                h = h[-1]
            out = h @ p["head.weight"].T + p["head.bias"]
            if not spec.V:
                return jnp.mean((out - targets) ** 2), last
            chosen = jnp.take_along_axis(out, targets[..., None], -1)[..., 0]
            return jnp.mean(nn.logsumexp(out, axis=-1) - chosen), last

        backward = jax.value_and_grad(loss_of, has_aux=True)

        def step(p, moments, n, inputs, targets, state):
            (loss, state), grads = backward(p, inputs, targets, state)
            p, moments = _adam(p, _clip(grads) if spec.V else grads, moments, n)
            return p, moments, loss, state

        self.backward = jax.jit(backward)
        self.call = jax.jit(step, donate_argnums=(0, 1))

    def _start(self, inputs):
        zero = _zeros("lstm", inputs.shape[1], self.spec.H, self.dtype)
        return [zero] * self.spec.layers

    def gradients(self, inputs, targets):
        _, grads = self.backward(self.p, inputs, targets, self._start(inputs))
        return grads

    def step(self, inputs, targets):
        state = self.state or self._start(inputs)
        self.n += 1
        self.p, self.moments, loss, state = self.call(
            self.p, self.moments, np.asarray(self.n, self.dtype), inputs, targets, state
        )
        if self.spec.V:
            self.state = state
        return jax.block_until_ready(loss)
