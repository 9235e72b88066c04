# SPDX-License-Identifier: BSD-3-Clause
"""The layers of `fastrnn.jax` by `jax.lax.scan`, from the papers' equations.

The judge of `fastrnn.jax`: JAX differentiates and maps these loops any way, and nothing
in them is shared with the package. They compute in the dtype of what they are given.
"""

import jax
import jax.numpy as jnp


def _steps(step, params, x, state, lengths):
    one = x.ndim == 2
    if one:
        x = x[:, None]
        state = tuple(part[None] for part in state)
        lengths = None if lengths is None else jnp.asarray(lengths)[None]
    zero = jnp.zeros((), x.dtype)
    p = {"bias_ih": zero, "bias_hh": zero, **params}

    def one_step(state, now):
        t, x_t = now
        new = step(p, x_t, state)
        if lengths is None:
            return new, new[0]
        counts = (t < lengths)[:, None]
        kept = [jnp.where(counts, a, b) for a, b in zip(new, state, strict=True)]
        return tuple(kept), jnp.where(counts, new[0], 0)

    end, y = jax.lax.scan(one_step, state, (jnp.arange(len(x)), x))
    return (y[:, 0], tuple(part[0] for part in end)) if one else (y, end)


def _zeros(params, x):
    return jnp.zeros((*x.shape[1:-1], params["weight_hh"].shape[1]), x.dtype)


def _part(a, k, n):
    H = a.shape[-1] // n
    return a[..., k * H : (k + 1) * H]


def lstm(params, x, state=None, lengths=None):
    """c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)."""

    def step(p, x_t, state):
        h, c = state
        a = x_t @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
        i, f, g, o = (_part(a, k, 4) for k in range(4))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    state = state or (_zeros(params, x),) * 2
    return _steps(step, params, x, state, lengths)


def gru(params, x, state=None, lengths=None):
    """h_t = (1 - z) n + z h_{t-1}, the reset gate after the product."""

    def step(p, x_t, state):
        (h,) = state
        ax = x_t @ p["weight_ih"].T + p["bias_ih"]
        ah = h @ p["weight_hh"].T + p["bias_hh"]
        r = jax.nn.sigmoid(_part(ax, 0, 3) + _part(ah, 0, 3))
        z = jax.nn.sigmoid(_part(ax, 1, 3) + _part(ah, 1, 3))
        n = jnp.tanh(_part(ax, 2, 3) + r * _part(ah, 2, 3))
        return ((1 - z) * n + z * h,)

    state = _zeros(params, x) if state is None else state
    y, (h,) = _steps(step, params, x, (state,), lengths)
    return y, h


def rnn(params, x, state=None, lengths=None, nonlinearity="tanh"):
    """h_t = tanh(W x_t + b_ih + R h_{t-1} + b_hh), or relu."""
    act = jnp.tanh if nonlinearity == "tanh" else jax.nn.relu

    def step(p, x_t, state):
        ax = x_t @ p["weight_ih"].T + p["bias_ih"]
        return (act(ax + state[0] @ p["weight_hh"].T + p["bias_hh"]),)

    state = _zeros(params, x) if state is None else state
    y, (h,) = _steps(step, params, x, (state,), lengths)
    return y, h


GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def arrays(rng, name, T=5, B=3, I=4, H=6, dtype="float64", bias=True):
    """Parameters and an input of random numbers."""
    n = GATES[name] * H
    shapes = {"weight_ih": (n, I), "weight_hh": (n, H)}
    shapes |= {"bias_ih": (n,), "bias_hh": (n,)} if bias else {}
    params = {
        key: jnp.asarray(0.5 * rng.standard_normal(shape), dtype)
        for key, shape in shapes.items()
    }
    return params, jnp.asarray(rng.standard_normal((T, B, I)), dtype)


def loss_of(layer, **options):
    """A loss of all results of a layer, which none of their gradients leaves alone."""

    def loss(params, x, state=None, lengths=None):
        found = layer(params, x, state, lengths, **options)
        weights = [jnp.cos(jnp.arange(a.size)).reshape(a.shape) for a in leaves(found)]
        return sum(
            jnp.sum(jnp.sin(a) * w) for a, w in zip(leaves(found), weights, strict=True)
        )

    return loss


leaves = jax.tree.leaves
