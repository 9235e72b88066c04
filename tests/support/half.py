# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent cells in float64 whose products have rounded operands, from the equations.

`exact` in place of `rounded` gives the same cells without any rounding.
"""

import numpy as np

import fastrnn


def exact(a):
    return a


def rounded(a):
    """The nearest bfloat16, of two as near the even one; a NaN stays one."""
    a = np.asarray(a)
    bits = np.ascontiguousarray(a, "f").view(np.uint32).astype(np.uint64)
    up = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    values = up.astype(np.uint32).view(np.float32)
    return np.where(np.isnan(a), np.nan, values).astype(np.float64)


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _lstm(ax, ah, state):
    i, f, g, o = np.split(ax + ah, 4, axis=1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c_prev = state["c"]
    c = f * c_prev + i * g
    h = o * np.tanh(c)

    def backward(dh, dc):
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        da = (
            dc * g * i * (1 - i),
            dc * c_prev * f * (1 - f),
            dc * i * (1 - g**2),
            dh * np.tanh(c) * o * (1 - o),
        )
        da = np.concatenate(da, axis=1)
        return da, da, 0.0, dc * f

    return h, c, backward


def _gru(ax, ah, state):
    H = ax.shape[1] // 3
    r = _sigmoid(ax[:, :H] + ah[:, :H])
    z = _sigmoid(ax[:, H : 2 * H] + ah[:, H : 2 * H])
    n = np.tanh(ax[:, 2 * H :] + r * ah[:, 2 * H :])
    h_prev = state["h"]
    h = (1 - z) * n + z * h_prev

    def backward(dh, dc):
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h_prev - n) * z * (1 - z)
        dr = dn * ah[:, 2 * H :] * r * (1 - r)
        of_x = np.concatenate((dr, dz, dn), axis=1)
        of_h = np.concatenate((dr, dz, dn * r), axis=1)
        return of_x, of_h, dh * z, dc

    return h, state["c"], backward


def _rnn(ax, ah, state):
    h = np.tanh(ax + ah)

    def backward(dh, dc):
        da = dh * (1 - h**2)
        return da, da, 0.0, dc

    return h, state["c"], backward


CELLS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def run(name, parameters, x, dy, cast):
    """y, dx, dW and dR of one layer whose loss is the sum of y * dy.

    Parameters
    ----------
    name : {"LSTM", "GRU", "RNN"}
    parameters : mapping
        Of a layer with one direction.
    x, dy : ndarray, shape (T, B, I) and (T, B, H)
    cast : callable
        `rounded` or `exact`: what becomes of the operands of products.
    """
    W, R, b_ih, b_hh = (np.asarray(parameters[key], float) for key in (
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))  # fmt: skip
    x, dy = np.asarray(x, float), np.asarray(dy, float)
    W, R, xs = cast(W), cast(R), cast(x)
    B, H = dy.shape[1:]
    state = {"h": np.zeros((B, H)), "c": np.zeros((B, H))}
    y, steps = [], []
    for x_t in xs:
        h_operand = cast(state["h"])
        ax, ah = x_t @ W.T + b_ih, h_operand @ R.T + b_hh
        h, c, backward = CELLS[name](ax, ah, state)
        steps.append((x_t, h_operand, backward))
        state = {"h": h, "c": c}
        y.append(h)
    dW, dR, dx = np.zeros(W.shape), np.zeros(R.shape), []
    dh, dc = np.zeros((B, H)), np.zeros((B, H))
    for dy_t, (x_t, h_operand, backward) in zip(dy[::-1], steps[::-1], strict=True):
        of_x, of_h, past, dc = backward(dh + dy_t, dc)
        of_x, of_h = cast(of_x), cast(of_h)
        dW += of_x.T @ x_t
        dR += of_h.T @ h_operand
        dx.append(of_x @ W)
        dh = past + of_h @ R
    return {"y": np.array(y), "dx": np.array(dx[::-1]), "dW": dW, "dR": dR}


def distance(a, b):
    """The relative error of `a`, as a root of mean squares."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.sqrt(((a - b) ** 2).sum() / (b**2).sum()))


def check_linear(shape, compute):
    """A dense layer has the same bits for any number of threads, and rounds operands.

    Parameters
    ----------
    shape : tuple of int
        N, I, O.
    compute : str

    Returns
    -------
    x, dy : ndarray
    results : list of bytes
        y, dx and the gradients of the parameters, one after the other.
    """
    N, I, O = shape
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((N, I)), rng.standard_normal((N, O))
    x, dy = x.astype("f"), dy.astype("f")
    found = []
    for n_threads in (1, 2, 7):
        before = fastrnn.get_num_threads()
        fastrnn.set_num_threads(n_threads)
        try:
            layer = fastrnn.Linear(I, O, seed=0, compute=compute)
            y = layer(x)
            dx = layer.backward(dy)
        finally:
            fastrnn.set_num_threads(before)
        found.append([one.tobytes() for one in (y, dx, layer.flat_grads)])
    assert found[1:] == found[:1] * 2
    W, b = (np.asarray(layer.parameters[key], float) for key in ("weight", "bias"))
    xr, Wr, dyr = rounded(x), rounded(W), rounded(dy)
    assert distance(y, xr @ Wr.T + b) < 1e-5
    assert distance(dx, dyr @ Wr) < 1e-5
    assert distance(layer.grads["weight"], dyr.T @ xr) < 1e-5
    np.testing.assert_allclose(
        layer.grads["bias"], dy.sum(0, dtype=float), rtol=1e-4, atol=1e-4
    )
    return x, dy, found[0]
