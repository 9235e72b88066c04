# SPDX-License-Identifier: BSD-3-Clause
"""Normalised cells in NumPy, written from the papers' equations, for complex steps too.

Weights are a dict by the parameters' names without suffix. Only operations that a
complex step goes through are used.
"""

import numpy as np

EPSILON = 1e-5


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def norm(row, gamma, rms=False):
    """Layer normalisation of the last axis, without beta, or an RMS norm."""
    centred = row if rms else row - row.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


def normalise(p, ax, ah, form, rms):
    """(part of x, part of h) of pre-activations without biases, from the products."""
    gamma = p["weight_norm_ih"]
    if form == "joint":
        return norm(ax + ah, gamma, rms), 0
    if form == "per_gate":
        gates = zip(np.split(ax + ah, 4, -1), np.split(gamma, 4), strict=True)
        return np.concatenate([norm(a, g, rms) for a, g in gates], -1), 0
    ax = norm(ax, gamma, rms)
    return ax, ah if form == "input" else norm(ah, p["weight_norm_hh"], rms)


def _products(p, x, h, form, rms):
    """The same, of x and h."""
    return normalise(p, x @ p["weight_ih"].T, h @ p["weight_hh"].T, form, rms)


def lstm(p, x, h, c, form, rms=False):
    ax, ah = _products(p, x, h, form, rms)
    i, f, g, o = np.split(ax + ah + p["bias_ih"] + p["bias_hh"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    n = c
    if "weight_norm_c" in p:
        n = norm(c, p["weight_norm_c"], rms) + p.get("bias_norm_c", 0)
    if form in ("carried", "per_gate"):
        c = n
    return sigmoid(o) * np.tanh(n), c


def gru(p, x, h, c, form, rms=False):
    ax, ah = _products(p, x, h, form, rms)
    if form == "joint":
        r, z, n = np.split(ax + p["bias_ih"] + p["bias_hh"], 3, -1)
        u = sigmoid(z - 1)
        return u * np.tanh(sigmoid(r) * n) + (1 - u) * h, None
    xr, xz, xn = np.split(ax + p["bias_ih"], 3, -1)
    hr, hz, hn = np.split(ah + p["bias_hh"], 3, -1)
    z = sigmoid(xz + hz)
    return (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h, None


def rnn(p, x, h, c, form, rms=False):
    ax, ah = _products(p, x, h, form, rms)
    return np.tanh(ax + ah + p["bias_ih"] + p["bias_hh"]), None


def ligru(p, x, h, c, form, rms=False):
    ax, ah = _products(p, x, h, form, rms)
    n, z = np.split(ax + ah + p["bias_ih"] + p["bias_hh"], 2, -1)
    z = sigmoid(z)
    # np.maximum compares complex numbers by their real parts first, as a step needs.
    return z * h + (1 - z) * np.maximum(n, 0), None


def run(step, p, x, h, c, form, rms=False):
    """y (T, B, H), and the last h and c."""
    y = []
    for now in x:
        h, c = step(p, now, h, c, form, rms)
        y.append(h)
    return np.stack(y), h, c
