# SPDX-License-Identifier: BSD-3-Clause
"""Cells with options: their equations in float64, and central differences of them.

What _core's kernels and the layers are both judged by.
"""

import math

import numpy as np

from fastrnn.native import core

SIZES = (5, 4, 3, 18)  # T, B, I, H
ERF = np.vectorize(math.erf, otypes=[float])
FUNCTIONS = {
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "hard_tanh": lambda x, a, b: np.clip(x, -1, 1),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x, a, b: np.where(x > 0, x, a * x),
    "thresholded_relu": lambda x, a, b: np.where(x > a, x, 0),
    "affine": lambda x, a, b: a * x + b,
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x),
    "gelu": lambda x, a, b: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
}
PLAIN = {
    "rnn_tanh": ["tanh"],
    "lstm": ["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"],
    "gru": ["sigmoid", "sigmoid", "tanh"],
}
GATES = {"rnn_tanh": 1, "lstm": 4, "gru": 3}
ALPHA, BETA = 0.3, 0.45


class Cell:
    """A cell with options: what _core is told, and the equations."""

    def __init__(self, kind, activations=None, **options):
        self.kind = kind
        self.names = activations or PLAIN[kind]
        self.options = options
        self.proj_size = options.get("proj_size", 0)
        general = activations is not None or set(options) - {"proj_size"}
        triples = [(name, ALPHA, BETA) for name in self.names] if general else None
        self.core = core.Options(triples, **options)

    def act(self, k, x):
        clip = self.options.get("clip")
        if clip and k < 4:  # not what comes of c_t
            x = np.clip(x, -clip, clip)
        return FUNCTIONS[self.names[k]](x, ALPHA, BETA)

    def forward(self, v):
        """y, h_n and c_n from a dict of arrays."""
        T, _, _ = v["x"].shape
        h, c = v["h0"], v.get("c0")
        P = v.get("P")
        ys = []
        for t in range(T):
            x = v["x"][t]
            if self.kind == "gru":
                xr, xz, xn = np.split(x @ v["W"].T + v["b_ih"], 3, axis=-1)
                Rr, Rz, Rn = np.split(v["R"], 3)
                br, bz, bn = np.split(v["b_hh"], 3)
                r, z = (
                    self.act(0, xr + h @ Rr.T + br),
                    self.act(1, xz + h @ Rz.T + bz),
                )
                if self.options.get("reset_before"):
                    n = self.act(2, xn + (r * h) @ Rn.T + bn)
                else:
                    n = self.act(2, xn + r * (h @ Rn.T + bn))
                h = (1 - z) * n + z * h
            else:
                a = x @ v["W"].T + v["b_ih"] + h @ v["R"].T + v["b_hh"]
                if self.kind == "lstm":
                    i, f, g, o = np.split(a, 4, axis=-1)
                    if P is not None:
                        i, f = i + P[0] * c, f + P[2] * c
                    i = self.act(0, i)
                    f = 1 - i if self.options.get("input_forget") else self.act(1, f)
                    c = f * c + i * self.act(2, g)
                    if P is not None:
                        o = o + P[1] * c
                    h = self.act(3, o) * FUNCTIONS[self.names[4]](c, ALPHA, BETA)
                    if self.proj_size:
                        h = h @ v["W_hr"].T
                else:
                    h = self.act(0, a)
            ys.append(h)
        return np.array(ys), h, c

    def data(self, sizes=SIZES, seed=0):
        """Inputs by name, and the gradients of y, h_n and c_n."""
        T, B, I, H = sizes
        S, G = self.proj_size or H, GATES[self.kind]
        rng = np.random.default_rng(seed)
        shapes = {
            "x": (T, B, I), "h0": (B, S), "W": (G * H, I), "R": (G * H, S),
            "b_ih": (G * H,), "b_hh": (G * H,),
        }  # fmt: skip
        if self.kind == "lstm":
            shapes["c0"] = (B, H)
        if self.options.get("peephole"):
            shapes["P"] = (3, H)
        if self.proj_size:
            shapes["W_hr"] = (S, H)
        v = {name: rng.standard_normal(shape) * 0.7 for name, shape in shapes.items()}
        v["R"] *= 1 / math.sqrt(H)  # unbounded functions must not explode
        d = {"y": rng.standard_normal((T, B, S)), "h_n": rng.standard_normal((B, S))}
        if self.kind == "lstm":
            d["c_n"] = rng.standard_normal((B, H))
        return v, d


def loss(cell, v, d):
    y, h, c = cell.forward(v)
    total = (y * d["y"]).sum() + (h * d["h_n"]).sum()
    return total + ((c * d["c_n"]).sum() if c is not None else 0)


def differences(cell, v, d, name, at, step=1e-6):
    """Central differences of the loss at some elements of one input."""
    found = []
    for k in at:
        sides = []
        for sign in (1, -1):
            moved = dict(v)
            moved[name] = v[name].copy()
            moved[name].flat[k] += sign * step
            sides.append(loss(cell, moved, d))
        found.append((sides[0] - sides[1]) / (2 * step))
    return np.array(found)


CASES = {
    **{f"rnn {name}": ("rnn_tanh", [name], {}) for name in FUNCTIONS},
    "rnn clip": ("rnn_tanh", None, {"clip": 0.8}),
    "lstm peephole": ("lstm", None, {"peephole": True}),
    "lstm coupled": ("lstm", None, {"input_forget": True}),
    "lstm clip": ("lstm", None, {"clip": 0.6}),
    "lstm activations": (
        "lstm",
        ["hard_sigmoid", "softsign", "gelu", "softplus", "elu"],
        {},
    ),
    "lstm all": (
        "lstm",
        ["sigmoid", "hard_sigmoid", "softsign", "sigmoid", "scaled_tanh"],
        {"peephole": True, "input_forget": True, "clip": 1.5, "proj_size": 5},
    ),
    "lstm peephole clip": ("lstm", None, {"peephole": True, "clip": 1.2}),
    "lstm projection": ("lstm", None, {"proj_size": 7}),
    "lstm projection wide": ("lstm", None, {"proj_size": 17}),
    "gru activations": ("gru", ["hard_sigmoid", "softsign", "leaky_relu"], {}),
    "gru clip": ("gru", None, {"clip": 0.7}),
    "gru before": ("gru", None, {"reset_before": True}),
    "gru before all": (
        "gru",
        ["hard_sigmoid", "sigmoid", "elu"],
        {"reset_before": True, "clip": 1.1},
    ),
}
