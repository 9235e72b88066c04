# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU written from their equations, for float64 and complex128.

Forward only, and slow: the judge of the kernels.  There is no backward here:
gradcheck.py differentiates these functions numerically, so nothing in them may hinder a
complex step: no abs, no max, no comparison but relu's, which sees the real part only.

Every argument may have extra leading axes, which broadcast: gradcheck.py puts its
perturbations there.  Letters: T steps, B rows, I inputs, H units, G gates, L layers,
D directions.  Weights are PyTorch's: ``W (G*H, I)``, ``R (G*H, H)``, gates in the order
i f g o (LSTM) and r z n (GRU).
"""

import numpy as np

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(a.real > 0, a, 0)


def product(a, weight):
    """``a weight^T`` over the last two axes."""
    return a @ np.swapaxes(weight, -1, -2)


def rnn_step(activation, x, h, W, R, b_ih, b_hh):
    """h_t = act(W x_t + b_ih + R h_{t-1} + b_hh)."""
    return activation(product(x, W) + b_ih + product(h, R) + b_hh)


def lstm_step(x, h, c, W, R, b_ih, b_hh):
    """c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)."""
    i, f, g, o = np.split(product(x, W) + b_ih + product(h, R) + b_hh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(x, h, W, R, b_ih, b_hh):
    """h_t = (1 - z) n + z h_{t-1}, with the reset gate after the product with R."""
    x_r, x_z, x_n = np.split(product(x, W) + b_ih, 3, axis=-1)
    h_r, h_z, h_n = np.split(product(h, R) + b_hh, 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def direction_forward(cell, x, h, c, W, R, b_ih, b_hh, reverse=False):
    """One layer in one direction: ``y (T, B, H)``, last ``h (B, H)``, ``c`` or None."""
    T, B, I = x.shape[-3:]
    H, G = h.shape[-1], GATES[cell]
    assert h.shape[-2:] == (B, H), h.shape
    assert (c is None) == (cell != "lstm")
    assert c is None or c.shape[-2:] == (B, H), c.shape
    assert W.shape[-2:] == (G * H, I), W.shape
    assert R.shape[-2:] == (G * H, H), R.shape
    assert b_ih.shape[-1] == b_hh.shape[-1] == G * H, (b_ih.shape, b_hh.shape)

    b_ih, b_hh = b_ih[..., None, :], b_hh[..., None, :]  # over the rows of the batch
    y = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        x_t = x[..., t, :, :]
        if cell == "lstm":
            h, c = lstm_step(x_t, h, c, W, R, b_ih, b_hh)
        elif cell == "gru":
            h = gru_step(x_t, h, W, R, b_ih, b_hh)
        else:
            h = rnn_step(np.tanh if cell == "tanh" else relu, x_t, h, W, R, b_ih, b_hh)
        y[t] = h
    y = np.stack(np.broadcast_arrays(*y), axis=-3)
    assert y.shape[-3:] == (T, B, H), y.shape
    return y, h, c


def forward(cell, x, h0, c0, parameters, num_layers=1, bidirectional=False):
    """A stack of layers: ``y (T, B, D*H)``, ``h_n (L*D, B, H)`` and ``c_n`` or None.

    `parameters` has PyTorch's names; without biases in it they count as zero.
    """
    suffixes = ("", "_reverse") if bidirectional else ("",)
    (T, B, _), H, D = x.shape[-3:], h0.shape[-1], len(suffixes)
    assert h0.shape[-3:] == (num_layers * D, B, H), h0.shape
    no_bias = np.zeros(GATES[cell] * H)
    h_n, c_n = [], []
    for layer in range(num_layers):
        outputs = []
        for direction, suffix in enumerate(suffixes):
            k = layer * D + direction
            y, h, c = direction_forward(
                cell,
                x,
                h0[..., k, :, :],
                None if c0 is None else c0[..., k, :, :],
                parameters[f"weight_ih_l{layer}{suffix}"],
                parameters[f"weight_hh_l{layer}{suffix}"],
                parameters.get(f"bias_ih_l{layer}{suffix}", no_bias),
                parameters.get(f"bias_hh_l{layer}{suffix}", no_bias),
                reverse=suffix == "_reverse",
            )
            outputs.append(y)
            h_n.append(h)
            c_n.append(c)
        x = np.concatenate(np.broadcast_arrays(*outputs), axis=-1)
    assert x.shape[-3:] == (T, B, D * H), x.shape
    h_n = np.stack(np.broadcast_arrays(*h_n), axis=-3)
    c_n = None if c0 is None else np.stack(np.broadcast_arrays(*c_n), axis=-3)
    assert h_n.shape[-3:] == (num_layers * D, B, H), h_n.shape
    return x, h_n, c_n
