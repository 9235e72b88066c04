# SPDX-License-Identifier: BSD-3-Clause
"""How far gradients of parameters are from those in double, ours and PyTorch's."""

import numpy as np
import torch

import fastrnn

CELLS = {
    "rnn": ("RNN", 1),
    "lstm": ("LSTM", 4),
    "gru": ("GRU", 3),
    "mgu": ("MGU", 2),
    "ligru": ("LiGRU", 2),
}


def draw(rng, most_rows=100_000):
    """Sizes (T, B, I, H), and the means of x and of the gradient of y."""
    while True:
        rows = int(np.exp(rng.uniform(np.log(64), np.log(most_rows))))
        B = int(np.exp(rng.uniform(0, np.log(min(rows / 2, 600)))))
        I, H = (int(np.exp(rng.uniform(np.log(low), np.log(128)))) for low in (2, 8))
        T = rows // B
        if T <= 3000 and T * B * (I + H) * H < 1e9:  # a second or so in double
            return T, B, I, H, *rng.choice([0.0, 1.0], 2)


def gradients(module, x, dy):
    """Of a layer of either library, as arrays of float64 by name."""
    if isinstance(module, torch.nn.Module):
        dtype = next(module.parameters()).dtype
        y, _ = module(torch.tensor(x, dtype=dtype))
        y.backward(torch.tensor(dy, dtype=dtype))
        return {k: p.grad.numpy().astype(float) for k, p in module.named_parameters()}
    y, _ = module(x.astype(module.dtype))
    module.backward(dy.astype(module.dtype))
    return {k: g.astype(float) for k, g in module.grads.items()}


def worst(got, exact):
    """The largest relative error of all parameters' gradients, in norms."""
    return max(
        np.linalg.norm(got[k] - exact[k]) / np.linalg.norm(exact[k]) for k in exact
    )


def errors(cell, rng, sizes):
    """The worst error of ours, and of PyTorch's layer, or None where it has none.

    PyTorch in double is the judge; where it has no such cell, our kernels in double.
    """
    T, B, I, H, x_mean, dy_mean = sizes
    kind, gates = CELLS[cell]
    shapes = {
        "weight_ih_l0": (gates * H, I),
        "weight_hh_l0": (gates * H, H),
        "bias_ih_l0": (gates * H,),
        "bias_hh_l0": (gates * H,),
    }
    state = {
        name: (rng.uniform(-1, 1, shape) / np.sqrt(H)).astype("f")
        for name, shape in shapes.items()
    }
    x = (rng.standard_normal((T, B, I)) + x_mean).astype("f")
    dy = (rng.standard_normal((T, B, H)) + dy_mean).astype("f")

    def ours(dtype):
        layer = getattr(fastrnn, kind)(I, H, dtype=dtype)
        layer.load_state_dict({k: a.astype(dtype) for k, a in state.items()})
        return gradients(layer, x, dy)

    def theirs(dtype):
        layer = getattr(torch.nn, kind)(I, H, dtype=dtype)
        layer.load_state_dict(
            {k: torch.tensor(a, dtype=dtype) for k, a in state.items()}
        )
        return gradients(layer, x, dy)

    if not hasattr(torch.nn, kind):
        return worst(ours("float32"), ours("float64")), None
    exact = theirs(torch.float64)
    return worst(ours("float32"), exact), worst(theirs(torch.float32), exact)
