# SPDX-License-Identifier: BSD-3-Clause
"""Cells written from their equations, for float64 and complex128.

Forward only, and slow: the judge of the kernels.  There is no backward here:
gradcheck.py differentiates these functions numerically, so nothing in them may hinder a
complex step: no abs, no max, no comparison but relu's, which sees the real part only.

Every argument may have extra leading axes, which broadcast: gradcheck.py puts its
perturbations there.  Letters: T steps, B rows, I inputs, H units, G gates, L layers,
D directions.  Weights are PyTorch's: ``W (G*H, I)``, ``R (G*H, H)``, gates in the order
in which `cell` names them.

A cell is one function, ``step(act, x, state, w)``, which gives the next state: h, or h
and c, and so on.  ``act(k, a)`` is the function of gate k, in the end that of c_t; `w`
has the weights by name and, of a cell with options (option_cells.py), these.
"""

from typing import NamedTuple

import numpy as np


class Reference(NamedTuple):
    """A cell's step; letters of its gates, and names of the plain cell's functions."""

    step: object
    gates: tuple
    functions: tuple


CELLS = {}  # by the name that csrc/kernels gives the cell


def cell(name, gates, functions):
    """Decorate a step: what the cell's paper says, and not what our table does."""

    def keep(step):
        CELLS[name] = Reference(step, tuple(gates.split()), tuple(functions.split()))
        return step

    return keep


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(a.real > 0, a, 0)


def same(a):
    return a


FUNCTIONS = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": relu,
    "exponential": np.exp,
    "affine": same,
}
# Letters of the states; of other cells h alone.
STATES = {"lstm": "hc", "slstm": "hcnm", "sru": "hc"}
# Parameters that multiply unit by unit, P in `w`.
VECTORS = {
    "leaky": "alpha",
    "indrnn_relu": "weight_hh",
    "indrnn_tanh": "weight_hh",
    "sru": "weight_c",
}


def product(a, weight):
    """``a weight^T`` over the last two axes."""
    return a @ np.swapaxes(weight, -1, -2)


def parts(w, n):
    """R and b_hh of each of n gates."""
    R, b = np.split(w["R"], n, axis=-2), np.split(w["b_hh"], n, axis=-1)
    return zip(R, b, strict=True)


# -- the cells -------------------------------------------------------------------------


@cell("rnn_tanh", "h", "tanh")
@cell("rnn_relu", "h", "relu")
def rnn_step(act, x, state, w):
    """h_t = act(W x_t + b_ih + R h_{t-1} + b_hh)."""
    return (
        act(0, product(x, w["W"]) + w["b_ih"] + product(state[0], w["R"]) + w["b_hh"]),
    )


@cell("lstm", "i f g o", "sigmoid sigmoid tanh sigmoid tanh")
def lstm_step(act, x, state, w):
    """c_t = f c_{t-1} + i g;  h_t = o act(c_t).

    Peepholes P, rows i o f, look at c; coupled gates have f = 1 - i; a projection W_hr
    makes h narrower.
    """
    h, c = state
    a = product(x, w["W"]) + w["b_ih"] + product(h, w["R"]) + w["b_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    if "P" in w:
        i, f = i + w["P"][0] * c, f + w["P"][2] * c
    i = act(0, i)
    f = 1 - i if w.get("input_forget") else act(1, f)
    c = f * c + i * act(2, g)
    if "P" in w:
        o = o + w["P"][1] * c
    h = act(3, o) * act(4, c)
    return product(h, w["W_hr"]) if "W_hr" in w else h, c


@cell("gru", "r z n", "sigmoid sigmoid tanh")
def gru_step(act, x, state, w):
    """h_t = (1 - z) n + z h_{t-1}, with the reset gate after the product with R.

    With `reset_before` it comes before the product.
    """
    (h,) = state
    x_r, x_z, x_n = np.split(product(x, w["W"]) + w["b_ih"], 3, axis=-1)
    (R_r, b_r), (R_z, b_z), (R_n, b_n) = parts(w, 3)
    r = act(0, x_r + product(h, R_r) + b_r)
    z = act(1, x_z + product(h, R_z) + b_z)
    if w.get("reset_before"):
        n = act(2, x_n + product(r * h, R_n) + b_n)
    else:
        n = act(2, x_n + r * (product(h, R_n) + b_n))
    return ((1 - z) * n + z * h,)


@cell("mgu", "f n", "sigmoid tanh")
def mgu_step(act, x, state, w):
    """h_t = (1 - f) h_{t-1} + f n, where n sees f h_{t-1}."""
    (h,) = state
    x_f, x_n = np.split(product(x, w["W"]) + w["b_ih"], 2, axis=-1)
    (R_f, b_f), (R_n, b_n) = parts(w, 2)
    f = act(0, x_f + product(h, R_f) + b_f)
    n = act(1, x_n + product(f * h, R_n) + b_n)
    return ((1 - f) * h + f * n,)


@cell("ligru", "n z", "relu sigmoid")
def ligru_step(act, x, state, w):
    """h_t = z h_{t-1} + (1 - z) n, no reset gate, n = relu by default."""
    (h,) = state
    a = product(x, w["W"]) + w["b_ih"] + product(h, w["R"]) + w["b_hh"]
    n, z = act(0, a[..., : a.shape[-1] // 2]), act(1, a[..., a.shape[-1] // 2 :])
    return (z * h + (1 - z) * n,)


@cell("leaky", "h", "tanh")
def leaky_step(act, x, state, w):
    """h_t = (1 - alpha) h_{t-1} + alpha f(a_t), with a rate for each unit."""
    (h,) = state
    a = product(x, w["W"]) + w["b_ih"] + product(h, w["R"]) + w["b_hh"]
    (alpha,) = vectors(w, 1)
    return ((1 - alpha) * h + alpha * act(0, a),)


@cell("slstm", "i f z o", "exponential sigmoid tanh sigmoid")
def slstm_step(act, x, state, w):
    """Equations 8 to 17 of the paper, with c and n divided by exp(m).

    m is the larger of two real parts, and i where nothing is stored yet. A complex
    step from an n of zero goes the way of that zero, as automatic differentiation does.
    """
    h, c, n, m = state
    a = product(x, w["W"]) + w["b_ih"] + product(h, w["R"]) + w["b_hh"]
    i, f, z, o = np.split(a, 4, axis=-1)
    before = (f if w.get("exp_forget") else np.log(act(1, f))) + m
    now = np.where((before.real > i.real) & (n.real != 0), before, i)
    input_gate, forget_gate = np.exp(i - now), np.exp(before - now)
    c = forget_gate * c + input_gate * act(2, z)
    n = forget_gate * n + input_gate
    return act(3, o) * c / n, c, n, now


def positive(a):
    """Feng et al.'s g, which makes a candidate positive."""
    return np.where(a.real >= 0, a + 0.5, sigmoid(a))


def vectors(w, n):
    """Each of n vectors of weights, over the rows of the batch."""
    return np.split(w["P"][..., None, :], n, axis=-1)


@cell("mingru", "z n", "sigmoid affine")
def mingru_step(act, x, state, w):
    """h_t = (1 - z) h_{t-1} + z n, where both see x alone."""
    a_z, a_n = np.split(product(x, w["W"]) + w["b_ih"], 2, axis=-1)
    z = act(0, a_z)
    n = positive(a_n) if w.get("log_space") else act(1, a_n)
    return ((1 - z) * state[0] + z * n,)


@cell("minlstm", "f i n", "sigmoid sigmoid affine")
def minlstm_step(act, x, state, w):
    """h_t = f / (f + i) h_{t-1} + i / (f + i) n."""
    a_f, a_i, a_n = np.split(product(x, w["W"]) + w["b_ih"], 3, axis=-1)
    f, i = act(0, a_f), act(1, a_i)
    n = positive(a_n) if w.get("log_space") else act(2, a_n)
    return (f / (f + i) * state[0] + i / (f + i) * n,)


@cell("indrnn_relu", "h", "relu")
@cell("indrnn_tanh", "h", "tanh")
def indrnn_step(act, x, state, w):
    """h_t = act(W x_t + b + u * h_{t-1})."""
    (u,) = vectors(w, 1)
    return (act(0, product(x, w["W"]) + w["b_ih"] + u * state[0]),)


@cell("sru", "f r n x", "sigmoid sigmoid affine affine")
def sru_step(act, x, state, w):
    """c_t = f c_{t-1} + (1 - f) W x_t;  h_t = r c_t + (1 - r) alpha x_t.

    Where x_t has not the width of h, x_t W_x takes its place.
    """
    h, c = state
    a = product(x, w["W"])
    a_f, a_r, n, *skip = np.split(a, a.shape[-1] // c.shape[-1], axis=-1)
    b_f, b_r = np.split(w["b_ih"], 2, axis=-1)
    v_f, v_r = vectors(w, 2)
    f, r = act(0, a_f + v_f * c + b_f), act(1, a_r + v_r * c + b_r)
    c = f * c + (1 - f) * n
    skip = w.get("skip_scale", 1) * (skip[0] if skip else x)
    return r * c + (1 - r) * skip + 0 * h, c  # copies of h0 are copies of h, too


# -- layers of plain cells -------------------------------------------------------------


def plain(cell):
    """What a plain cell's step takes as `act`."""
    functions = [FUNCTIONS[name] for name in CELLS[cell].functions]
    return lambda k, a: functions[k](a)


def direction_forward(cell, x, state, weights, reverse=False, options=()):
    """One layer in one direction: ``y (T, B, H)``, and the last state's arrays.

    `weights` are by their letters: W, b_ih, and those of R, b_hh, P that a cell has.
    """
    T, B, I = x.shape[-3:]
    H = state[0].shape[-1]
    assert all(part.shape[-2:] == (B, H) for part in state), state[0].shape
    assert weights["W"].shape[-1] == I, weights["W"].shape
    assert weights["W"].shape[-2] % H == 0, weights["W"].shape
    if "R" in weights:
        G = len(CELLS[cell].gates)
        assert weights["R"].shape[-2:] == (G * H, H), weights["R"].shape
        assert weights["b_ih"].shape[-1] == weights["b_hh"].shape[-1] == G * H

    # Over the rows of the batch:
    w = {**dict(options), **weights}
    w |= {name: w[name][..., None, :] for name in ("b_ih", "b_hh") if name in w}
    act, y = plain(cell), [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        state = CELLS[cell].step(act, x[..., t, :, :], state, w)
        y[t] = state[0]
    y = np.stack(np.broadcast_arrays(*y), axis=-3)
    assert y.shape[-3:] == (T, B, H), y.shape
    return y, state


def weights_of(cell, parameters, suffix, H):
    """The weights of one direction by letters; biases that there are not are zero."""
    names = {"weight_ih": "W", "weight_hh": "R", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    if cell in VECTORS:
        names[VECTORS[cell]] = "P"
    found = {
        letter: parameters[name + suffix]
        for name, letter in names.items()
        if name + suffix in parameters
    }
    n = 2 if cell == "sru" else len(CELLS[cell].gates)
    for name in ("b_ih", "b_hh") if "R" in found else ("b_ih",):
        found.setdefault(name, np.zeros(n * H))
    return found


def forward(cell, x, state, parameters, num_layers=1, bidirectional=False, options=()):
    """A stack of layers: ``y (T, B, D*H)`` and the last state, ``(L*D, B, H)`` each.

    `parameters` has PyTorch's names; without biases in it they count as zero.
    """
    suffixes = ("", "_reverse") if bidirectional else ("",)
    (T, B, _), H, D = x.shape[-3:], state[0].shape[-1], len(suffixes)
    for part in state:
        assert part.shape[-3:] == (num_layers * D, B, H), part.shape
    end = []
    for layer in range(num_layers):
        outputs = []
        for direction, suffix in enumerate(suffixes):
            k = layer * D + direction
            y, last = direction_forward(
                cell,
                x,
                tuple(part[..., k, :, :] for part in state),
                weights_of(cell, parameters, f"_l{layer}{suffix}", H),
                reverse=suffix == "_reverse",
                options=options,
            )
            outputs.append(y)
            end.append(last)
        x = np.concatenate(np.broadcast_arrays(*outputs), axis=-1)
    assert x.shape[-3:] == (T, B, D * H), x.shape
    end = tuple(
        np.stack(np.broadcast_arrays(*parts), axis=-3)
        for parts in zip(*end, strict=True)
    )
    assert end[0].shape[-3:] == (num_layers * D, B, H), end[0].shape
    return x, end
