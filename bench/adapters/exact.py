# SPDX-License-Identifier: BSD-3-Clause
"""The judge of narrow numbers: LSTM, GRU and RNN from their equations, in float64.

Its sides have results and are never timed. They are the outputs y and, in training, dR,
the gradient of R. Layouts and the order of gates are PyTorch's.
"""

import numpy as np

from bench import data
from bench.adapters import N_STEPS, UnsupportedError, form_of
from bench.case import LayerCase

CASES = (LayerCase,)


def start(n_threads, dtype):
    return {"versions": {"numpy": np.__version__}, "settings": {}}


def variants(case, dtype):
    if dtype != "float32":
        raise UnsupportedError("it judges layers of float32")
    cell = form_of(CELLS, case)
    return {"equations": lambda: Exact(cell, case)}


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


class LSTM:
    """An LSTM: a step, and the gradients of the step's pre-activations."""

    def __init__(self, R, b_hh, B):
        self.R, self.b_hh = R, b_hh
        self.h = self.c = np.zeros((B, R.shape[1]))

    def step(self, a):
        """The next h of the inputs' part `a` (B, 4H), and what `back` needs."""
        i, f, g, o = np.split(a + self.h @ self.R.T + self.b_hh, 4, axis=1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        kept = i, f, g, o, self.c, self.h
        self.c = f * self.c + i * g
        self.h = o * np.tanh(self.c)
        return (*kept, np.tanh(self.c))

    def back(self, kept, dh, dc):
        """The step's dR, and the gradients of h and c before it."""
        i, f, g, o, c, h, tanh_c = kept
        dc = dc + dh * o * (1 - tanh_c**2)
        da = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c * f * (1 - f),
                dc * i * (1 - g**2),
                dh * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        return da.T @ h, da @ self.R, dc * f


class GRU:
    """A GRU whose reset gate multiplies after the product with R."""

    def __init__(self, R, b_hh, B):
        self.R, self.b_hh = R, b_hh
        self.h = np.zeros((B, R.shape[1]))

    def step(self, a):
        """The next h of the inputs' part `a` (B, 3H), and what `back` needs."""
        a_r, a_z, a_n = np.split(a, 3, axis=1)
        u_r, u_z, u_n = np.split(self.h @ self.R.T + self.b_hh, 3, axis=1)
        r, z = _sigmoid(a_r + u_r), _sigmoid(a_z + u_z)
        n, h = np.tanh(a_n + r * u_n), self.h
        self.h = (1 - z) * n + z * h
        return r, z, n, u_n, h

    def back(self, kept, dh, _):
        """The step's dR, and the gradient of h before it; there is no c."""
        r, z, n, u_n, h = kept
        d_n = dh * (1 - z) * (1 - n**2)
        d_r = d_n * u_n * r * (1 - r)
        d_z = dh * (h - n) * z * (1 - z)
        du = np.concatenate([d_r, d_z, d_n * r], axis=1)
        return du.T @ h, du @ self.R + dh * z, 0.0


class RNN:
    """A cell of tanh."""

    def __init__(self, R, b_hh, B):
        self.R, self.b_hh = R, b_hh
        self.h = np.zeros((B, R.shape[1]))

    def step(self, a):
        """The next h of the inputs' part `a` (B, H), and what `back` needs."""
        h = self.h
        self.h = np.tanh(a + h @ self.R.T + self.b_hh)
        return h, self.h

    def back(self, kept, dh, _):
        """The step's dR, and the gradient of h before it; there is no c."""
        h, y = kept
        da = dh * (1 - y**2)
        return da.T @ h, da @ self.R, 0.0


CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class Exact:
    """The side of a case: what its outputs and dR are, but for float64's rounding."""

    def __init__(self, cell, case):
        self.cell, self.case = cell, case

    def results(self):
        weights, x, dy = data.layer(self.case, "float32")
        W, R, b_ih, b_hh = (
            weights[f"{name}_l0"].astype(float)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if self.case.direction == "step":  # the same step again and again
            x = np.repeat(x, N_STEPS, axis=0)
        cell = self.cell(R, b_hh, x.shape[1])
        y, tape = [], []
        for a in x.astype(float) @ W.T + b_ih:
            tape.append(cell.step(a))
            y.append(cell.h)
        if self.case.direction != "train":
            return {"y": np.array(y)}
        dR, dh, dc = 0.0, 0.0, 0.0
        for kept, dy_t in zip(reversed(tape), dy[::-1], strict=True):
            of_step, dh, dc = cell.back(kept, dh + dy_t, dc)
            dR = dR + of_step
        return {"y": np.array(y), "dweight_hh_l0": dR}
