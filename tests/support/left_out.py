# SPDX-License-Identifier: BSD-3-Clause
"""What recurrent layers leave out at random: the choices, and cells that make them.

The choices are those that the head of csrc/kernels/draw.h describes, and the steps are
written from the papers, in float64. A mask has a leading axis of gates.
"""

import copy

import norm_reference
import numpy as np
from reference import sigmoid

PURPOSES = {"zoneout_h": 0, "zoneout_c": 1, "input": 2, "noise": 3, "recurrent": 4}
N_PURPOSES = 8


def splitmix(z, n):
    """Output number n of splitmix64, started from z."""
    with np.errstate(over="ignore"):
        z = np.asarray(z, np.uint64) + (
            np.asarray(n).astype(np.uint64) + np.uint64(1)
        ) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def splitmix_from(start, width):
    """32 bits for each of `width` units, from a number for each of the rest."""
    pairs = np.arange(width) // 2
    with np.errstate(over="ignore"):
        out = splitmix(np.asarray(start)[..., None], pairs.astype(np.int64) - 1)
    return np.where(np.arange(width) % 2, out >> np.uint64(32), out) & np.uint64(
        0xFFFFFFFF
    )


def bits(key, cell, purpose, rows, width, steps=None, gate=0):
    """Random bits (rows, width), or (steps, rows, width)."""
    start = splitmix(key, cell * N_PURPOSES + PURPOSES[purpose] + gate)
    start = splitmix(start, np.asarray(rows))
    if steps is not None:
        start = splitmix(start, np.asarray(steps)[:, None])
    return splitmix_from(start, width)


def chosen(p, *args, **kwargs):
    return bits(*args, **kwargs) < np.uint64(p * 2**32)


def dropout(p, *args, **kwargs):
    return np.where(chosen(p, *args, **kwargs), 0, 1 / (1 - p))


def next_key(layer):
    """The key of the layer's next call in training."""
    return int(copy.deepcopy(layer._dropout_seeds).integers(2**63))


def norm_of(layer):
    """(what is normalised or None, whether that is an RMS norm)."""
    form = layer.layer_norm or layer.rms_norm
    if form is True:
        form = "cell" if type(layer).__name__ == "LSTM" else "apart"
    return form, bool(layer.rms_norm)


def dense(R, heads):
    """Recurrent weights of all units, from those of heads."""
    size, (n, _) = R.shape[1], R.shape
    full = np.zeros((n, heads, size))
    units = np.arange(n) % (heads * size)
    full[np.arange(n), units // size] = R
    return full.reshape(n, heads * size)


def run(layer, x, key, cell=0, rows=None, steps=None):
    """y of one layer in one direction, forward in time: (T, B, H)."""
    T, B, I = x.shape
    H, kind = layer.hidden_size, type(layer).__name__
    G = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    rows = np.arange(B) if rows is None else rows
    steps = np.arange(T) if steps is None else steps
    zoned = layer.zoneout
    p_c, p_h = zoned if isinstance(zoned, tuple) else (zoned, zoned)
    zone_h = chosen(p_h, key, cell, "zoneout_h", rows, H, steps)
    zone_c = chosen(p_c, key, cell, "zoneout_c", rows, H, steps)
    m_h, m_g, p = np.ones((G, B, H)), 1.0, layer.recurrent_dropout
    if layer.recurrent_dropout_mode == "candidate":
        m_g = dropout(p, key, cell, "recurrent", rows, H)
    elif layer.recurrent_dropout_mode == "h":
        m_h = m_h * dropout(p, key, cell, "recurrent", rows, H)
    else:
        several = [
            dropout(p, key, cell, "recurrent", rows, H, gate=g) for g in range(G)
        ]
        m_h = np.array(several)
    x = x * dropout(layer.input_dropout, key, cell, "input", rows, I)
    p = {name.removesuffix("_l0"): v for name, v in layer.parameters.items()}
    form, rms = norm_of(layer)
    R = dense(p["weight_hh"], layer.heads)
    W, R, b, d = (
        np.split(v, G) for v in (p["weight_ih"], R, p["bias_ih"], p["bias_hh"])
    )
    h, c, outputs = np.zeros((B, H)), np.zeros((B, H)), []
    for t in range(T):
        ax = [x[t] @ W[g].T for g in range(G)]
        ah = [(h * m_h[g]) @ R[g].T for g in range(G)]
        if form:
            rows_of_gates = np.concatenate(ax, -1), np.concatenate(ah, -1)
            ax, ah = norm_reference.normalise(p, *rows_of_gates, form, rms)
            ax = np.split(ax, G, -1)
            ah = np.split(ah, G, -1) if form not in ("joint", "per_gate") else [0] * G
        ax, ah = ([a[g] + bias[g] for g in range(G)] for a, bias in ((ax, b), (ah, d)))
        if kind == "LSTM":
            i, f, o = (sigmoid(ax[g] + ah[g]) for g in (0, 1, 3))
            new_c = f * c + i * (np.tanh(ax[2] + ah[2]) * m_g)
            out = new_c
            if "weight_norm_c" in p:
                out = norm_reference.norm(new_c, p["weight_norm_c"], rms)
                out = out + p.get("bias_norm_c", 0)
            new = o * np.tanh(out)  # Krueger et al.: of the c that is not zoned
            new_c = out if form in ("carried", "per_gate") else new_c
            c = np.where(zone_c[t], c, new_c)
        elif form == "joint" and kind == "GRU":
            r, u = sigmoid(ax[0] + ah[0]), sigmoid(ax[1] + ah[1] - 1)
            n = np.tanh(r * (ax[2] + ah[2]))
            new = u * (n * m_g) + (1 - u) * h
        elif kind == "GRU":
            r, z = (sigmoid(ax[g] + ah[g]) for g in (0, 1))
            if layer.reset_after:
                n = np.tanh(ax[2] + r * ah[2])
            else:
                n = np.tanh(ax[2] + (r * h * m_h[2]) @ R[2].T + d[2])
            new = (1 - z) * (n * m_g) + z * h
        else:
            new = np.tanh(ax[0] + ah[0])
        h = np.where(zone_h[t], h, new)
        outputs.append(h)
    return np.array(outputs)
