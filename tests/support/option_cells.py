# SPDX-License-Identifier: BSD-3-Clause
"""Cells with options: their equations in float64, and central differences of them.

What _core's kernels and the layers are both judged by.
"""

import math

import numpy as np
import reference
from cells import N_STATES, by_letter, weight_shapes

from fastrnn.native import celltable

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
    "exponential": lambda x, a, b: np.exp(x),
    "gelu": lambda x, a, b: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
}
ALPHA, BETA = 0.3, 0.45
GROWING = ("exponential",)  # what an RNN of them puts out is out of bounds soon


class Cell:
    """A cell with options: what _core is told, and the equations."""

    def __init__(self, kind, activations=None, **options):
        self.kind = kind
        self.about = reference.CELLS[kind]
        self.names = activations or self.about.functions
        self.options = options
        self.proj_size = options.get("proj_size", 0)
        general = activations is not None or set(options) - {"proj_size"}
        triples = [(name, ALPHA, BETA) for name in self.names] if general else None
        self.core = celltable.CellOptions(triples, **options)

    def act(self, k, x):
        if "activations" not in celltable.cell(self.kind).options:
            return reference.FUNCTIONS[self.names[k]](x)
        clip = self.options.get("clip")
        if clip and k < len(self.about.gates):  # not what comes of c_t
            x = np.clip(x, -clip, clip)
        return FUNCTIONS[self.names[k]](x, ALPHA, BETA)

    def forward(self, v):
        """y, h_n and c_n from a dict of arrays."""
        state = states_of(v["h0"], v.get("c0"))
        w = {**self.options, **v}
        ys = []
        for x in v["x"]:
            state = self.about.step(self.act, x, state, w)
            ys.append(state[0])
        return np.array(ys), state[0], beside_h(state)

    def data(self, sizes=SIZES, seed=0):
        """Inputs by name, and the gradients of y, h_n and c_n."""
        T, B, I, H = sizes
        S, G = self.proj_size or H, len(self.about.gates)
        rng = np.random.default_rng(seed)
        shapes = {
            "x": (T, B, I), "h0": (B, S), "W": (G * H, I), "R": (G * H, S),
            "b_ih": (G * H,), "b_hh": (G * H,),
        }  # fmt: skip
        about = celltable.cell(self.kind)
        if about.is_scan:
            named = weight_shapes(self.kind, I, H)
            shapes = {"x": (T, B, I), "h0": (B, S)}
            shapes |= by_letter(self.kind, {n: s for n, (s, _) in named.items()})
        if N_STATES[self.kind] == 2:
            shapes["c0"] = (B, H)
        elif N_STATES[self.kind] > 2:
            shapes["c0"] = (N_STATES[self.kind] - 1, B, H)
        if self.options.get("peephole"):
            shapes["P"] = (3, H)
        elif about.vectors and "peephole" not in about.options:
            shapes["P"] = (about.n_vectors * H,)
        if self.proj_size:
            shapes["W_hr"] = (S, H)
        v = {name: rng.standard_normal(shape) * 0.7 for name, shape in shapes.items()}
        if "R" in v:
            v["R"] *= 1 / math.sqrt(H)  # unbounded functions must not explode
        d = {"y": rng.standard_normal((T, B, S)), "h_n": rng.standard_normal((B, S))}
        if N_STATES[self.kind] == 2:
            d["c_n"] = rng.standard_normal((B, H))
        elif N_STATES[self.kind] > 2:
            d["c_n"] = rng.standard_normal(shapes["c0"])
            v["c0"][1] = np.abs(v["c0"][1]) + 0.5  # n, which divides
        return v, d


def states_of(h, c):
    """A state as a reference takes it, from h and the states beside it, or None."""
    if c is None:
        return (h,)
    return (h, *c) if c.ndim == 3 else (h, c)


def beside_h(state):
    """The states beside h as the kernels take them: one array, or None."""
    if len(state) <= 2:
        return state[1] if len(state) == 2 else None
    return np.stack(state[1:])


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
    **{
        f"rnn_tanh {name}": (
            "rnn_tanh",
            [name],
            {"clip": 1.0} if name in GROWING else {},
        )
        for name in FUNCTIONS
    },
    "rnn_tanh clip": ("rnn_tanh", None, {"clip": 0.8}),
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
    "leaky relu": ("leaky", ["relu"], {}),
    "leaky softplus": ("leaky", ["softplus"], {}),
    "mingru log space": ("mingru", None, {"log_space": True}),
    "minlstm log space": ("minlstm", None, {"log_space": True}),
    "sru scaled": ("sru", None, {"skip_scale": 1.7}),
    "gru before all": (
        "gru",
        ["hard_sigmoid", "sigmoid", "elu"],
        {"reset_before": True, "clip": 1.1},
    ),
}
# Every cell with options that all of them may have, unless it is above.
for _name in celltable.CELLS:
    _about = celltable.cell(_name)
    if "clip" in _about.options:
        CASES.setdefault(f"{_name} clip", (_name, None, {"clip": 0.7}))
    if "activations" in _about.options and len(_about.gates) > 1:
        _several = ["hard_sigmoid", "softsign", "leaky_relu", "softplus", "elu"]
        _several = _several[: len(_about.activations)]
        CASES.setdefault(f"{_name} activations", (_name, _several, {}))
