# SPDX-License-Identifier: BSD-3-Clause
"""The same layers by `jax.lax.scan`, from the cells' equations.

They run where the kernels cannot: on other devices, sharded, exported, and for the
derivatives that the kernels do not compute. JAX differentiates them any way.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from fastrnn.jax._axes import alike
from fastrnn.jax._call import WEIGHTS, Call
from fastrnn.native import celltable
from fastrnn.recurrent.pure import Form

# The functions of the kernels' table, of x and the two parameters.
_FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "tanh": lambda x, a, b: jnp.tanh(x),
    "sigmoid": lambda x, a, b: jax.nn.sigmoid(x),
    "relu": lambda x, a, b: jax.nn.relu(x),
    "hard_sigmoid": lambda x, a, b: _clamp(a * x + b, 0, 1),
    "hard_tanh": lambda x, a, b: _clamp(x, -1, 1),
    "softsign": lambda x, a, b: jax.nn.soft_sign(x),
    "softplus": lambda x, a, b: jax.nn.softplus(x),
    "elu": lambda x, a, b: jax.nn.elu(x, a),
    "leaky_relu": lambda x, a, b: jnp.where(x > 0, x, a * x),
    "thresholded_relu": lambda x, a, b: jnp.where(x > a, x, 0 * x),
    "affine": lambda x, a, b: a * x + b,
    "scaled_tanh": lambda x, a, b: a * jnp.tanh(b * x),
    "gelu": lambda x, a, b: jax.nn.gelu(x, approximate=False),
}


def _clamp(x, low, high):
    """x brought between two numbers, with a slope of 0 at both, as the kernels have."""
    return jnp.where(x > low, jnp.where(x < high, x, high), low).astype(x.dtype)


def layer(
    form: Form,
    weights: Sequence[Array],
    x: Array,
    h0: Array,
    c0: Array | None,
    mask: Array | None,
    hold: bool,
) -> tuple[Array, ...]:
    """One layer, time first: y, h_n and, for an LSTM, c_n.

    Parameters and results are those of `pure.Recurrence.forward`.
    """
    step = partial(_STEPS[form.cell.partition("_")[0]], form, _functions(form))
    weight_ih, weight_hh, *biases = weights
    b_ih, b_hh = biases or (jnp.zeros((), x.dtype),) * 2
    from_x = x @ weight_ih.T + b_ih
    start = (h0,) if c0 is None else (h0, c0)

    def one(state, from_x_t):
        new = step(from_x_t, state, weight_hh, b_hh)
        return new, new[0]

    def one_masked(carry, now):
        state, shown = carry
        from_x_t, is_on = now[0], now[1][:, None]
        new = step(from_x_t, state, weight_hh, b_hh)
        new = tuple(jnp.where(is_on, a, b) for a, b in zip(new, state, strict=True))
        y = jnp.where(is_on, new[0], shown)
        return (new, y if hold else shown), y

    if mask is None:
        end, y = jax.lax.scan(one, start, from_x)
    else:
        zero = alike((jnp.zeros_like(h0), h0))[0]
        (end, _), y = jax.lax.scan(one_masked, (start, zero), (from_x, mask))
    return y, *end


def _functions(form):
    """The functions of a form's gates, in order, and after them that of c_t."""
    names = celltable.cell(form.cell).activations
    chosen = form.activations or [(name, 0.0, 0.0) for name in names]
    return [partial(_call, _FUNCTIONS[name], a, b) for name, a, b in chosen]


def _call(function, a, b, x):
    return function(x, a, b)


def _gates(n, a):
    """The parts of n gates, which lie side by side.

    `jnp.split` would do, but JAX 0.10.2 gets gradients wrong of a scan with it under
    vmap.
    """
    H = a.shape[-1] // n
    return [a[..., k * H : (k + 1) * H] for k in range(n)]


def _lstm(form, act, from_x, state, weight_hh, b_hh):
    """c_t = f c_{t-1} + i g;  h_t = o act(c_t)."""
    h, c = state
    i, f, g, o = _gates(4, from_x + h @ weight_hh.T + b_hh)
    c = act[1](f) * c + act[0](i) * act[2](g)
    return act[3](o) * act[4](c), c


def _gru(form, act, from_x, state, weight_hh, b_hh):
    """h_t = (1 - z) n + z h_{t-1}; n has r after the product with R, or before it."""
    (h,) = state
    x_r, x_z, x_n = _gates(3, from_x)
    if not form.reset_before:
        h_r, h_z, h_n = _gates(3, h @ weight_hh.T + b_hh)
        r, z = act[0](x_r + h_r), act[1](x_z + h_z)
        n = act[2](x_n + r * h_n)
        return ((1 - z) * n + z * h,)
    H = form.hidden_size
    R, R_n = weight_hh[: 2 * H], weight_hh[2 * H :]
    b, b_n = (b_hh[: 2 * H], b_hh[2 * H :]) if form.bias else (b_hh, b_hh)
    h_r, h_z = _gates(2, h @ R.T + b)
    r, z = act[0](x_r + h_r), act[1](x_z + h_z)
    n = act[2](x_n + (r * h) @ R_n.T + b_n)
    return ((1 - z) * n + z * h,)


def _rnn(form, act, from_x, state, weight_hh, b_hh):
    """h_t = act(x_t W^T + b_ih + h_{t-1} R^T + b_hh)."""
    return (act[0](from_x + state[0] @ weight_hh.T + b_hh),)


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


# -- calls, as the kernels know them ---------------------------------------------------


def compute(*operands: Array, call: Call) -> tuple[Array, ...]:
    """The results of a call of any direction, from its operands."""
    if call.groups is None:
        return _one(call, operands)
    axes = tuple(0 if has else None for has in call.grouped)
    alone = call._replace(groups=None, grouped=())
    return jax.vmap(lambda *own: _one(alone, own), axes, 0, axis_size=call.groups)(
        *operands
    )


def _one(call, operands):
    given = dict(zip(call.operands, operands, strict=True))
    of_layer = [name for name in PRIMALS if name in given]
    primals = [given[name] for name in of_layer]

    def whole(*primals):
        return _by_name(call, dict(zip(of_layer, primals, strict=True)), given)

    if call.direction == "forward":
        found = dict(zip(("y", "h_n", "c_n"), whole(*primals), strict=False))
    elif call.direction == "linear":
        tangents = [given.get("t_" + name) for name in of_layer]
        found = _pushed(whole, primals, tangents)
        found = dict(zip(("y", "h_n", "c_n"), found, strict=False))
    else:
        ends, pull = jax.vjp(whole, *primals)
        names = ("dy", "dh_n", "dc_n")
        found = pull(
            tuple(
                given.get(name, jnp.zeros_like(end))
                for name, end in zip(names, ends, strict=False)
            )
        )
        found = {"d" + n: d for n, d in zip(of_layer, found, strict=True)}
    shapes = dict(zip(call.results, call.shapes(*_sizes(call, given)), strict=True))
    for name in {"tape", "origin"} & shapes.keys():
        found[name] = jnp.zeros(*shapes[name])
    return tuple(found[name] for name in call.results)


# The operands of a call that have derivatives.
PRIMALS = (*WEIGHTS, "x", "h0", "c0")


def _by_name(call, primals, given):
    weights = [primals[name] for name in WEIGHTS if name in primals]
    x, mask = primals["x"], given.get("mask")
    if call.batch_first:
        x = x.swapaxes(0, 1)
        mask = None if mask is None else mask.swapaxes(0, 1)
    y, *ends = layer(
        call.form, weights, x, primals["h0"], primals.get("c0"), mask, call.hold
    )
    return (y.swapaxes(0, 1) if call.batch_first else y, *ends)


def _pushed(function, primals, tangents):
    """The derivative of a function in the direction of tangents, None for zero."""
    moving = [k for k, tangent in enumerate(tangents) if tangent is not None]

    def of_moving(*own):
        everything = list(primals)
        for k, primal in zip(moving, own, strict=True):
            everything[k] = primal
        return function(*everything)

    return jax.jvp(
        of_moving, [primals[k] for k in moving], [tangents[k] for k in moving]
    )[1]


def _sizes(call, given):
    outer = given["x"].shape[:2]
    return outer[::-1] if call.batch_first else outer
