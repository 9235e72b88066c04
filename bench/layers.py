# SPDX-License-Identifier: BSD-3-Clause
"""One recurrent layer with the same weights and data in fastrnn and in PyTorch.

Both sides of a pair have ``run()``, the call that is timed, and ``results()``, which
runs it once and gives every output as a dict of NumPy arrays.  PyTorch is at its best
settings: inference mode for the forward pass, gradients set to None, not cleared.
"""

import numpy as np
import torch

import fastrnn

SEED = 20260101
# Largest error allowed, relative to the largest element of the PyTorch result: weight
# gradients are sums over T * B products, in another order in each library.
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}
CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


class FastRNN:
    """The fastrnn side."""

    def __init__(self, case, dtype, weights, x, dy):
        layer_class = getattr(fastrnn, CLASSES[case.cell])
        self.layer = layer_class(case.shape.I, case.shape.H, dtype=dtype)
        self.layer.load_state_dict(weights)
        self.x, self.dy = x, dy
        self.is_training = case.direction == "train"
        self.layer.train(self.is_training)

    def run(self):
        if not self.is_training:
            y, _ = self.layer(self.x)
            return y, None
        self.layer.zero_grad()
        y, _ = self.layer(self.x)
        dx, _ = self.layer.backward(self.dy)
        return y, dx

    def results(self):
        y, dx = self.run()
        if not self.is_training:
            return {"y": y}
        grads = {f"d{name}": grad.copy() for name, grad in self.layer.grads.items()}
        return {"y": y, "dx": dx, **grads}


class Torch:
    """The PyTorch side."""

    def __init__(self, case, dtype, weights, x, dy):
        layer_class = getattr(torch.nn, CLASSES[case.cell])
        self.layer = layer_class(
            case.shape.I, case.shape.H, dtype=getattr(torch, dtype)
        )
        self.layer.load_state_dict(
            {name: torch.from_numpy(value) for name, value in weights.items()}
        )
        self.x, self.dy = torch.from_numpy(x.copy()), torch.from_numpy(dy)
        self.is_training = case.direction == "train"
        self.layer.train(self.is_training)
        self.x.requires_grad_(self.is_training)

    def run(self):
        if not self.is_training:
            with torch.inference_mode():
                y, _ = self.layer(self.x)
            return y
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        y, _ = self.layer(self.x)
        y.backward(self.dy)
        return y

    def results(self):
        y = self.run().detach().numpy()
        if not self.is_training:
            return {"y": y}
        named = self.layer.named_parameters()
        grads = {f"d{name}": value.grad.numpy() for name, value in named}
        return {"y": y, "dx": self.x.grad.numpy(), **grads}


def pair(case, dtype):
    """Both sides of `case`, with the same random weights, input and output gradient."""
    rng = np.random.default_rng(SEED)
    T, B, I, H = case.shape
    module = getattr(fastrnn, CLASSES[case.cell])(I, H, dtype=dtype, seed=SEED)
    weights = module.state_dict()
    x = rng.standard_normal((T, B, I)).astype(dtype)
    dy = rng.standard_normal((T, B, H)).astype(dtype)
    sides = {"fastrnn": FastRNN, "torch": Torch}
    return {name: side(case, dtype, weights, x, dy) for name, side in sides.items()}


def check(ours, theirs, dtype, what):
    """Raise unless both sides gave the same arrays; returns the largest error.

    Parameters
    ----------
    ours, theirs : dict of str to ndarray
        What ``results()`` gave on each side.
    dtype : {"float32", "float64"}
        Decides the tolerance.
    what : str
        Named in the message: the case's id.

    Returns
    -------
    float
        Largest error of any array, relative to that array's largest element.

    Raises
    ------
    ArithmeticError
        If names, shapes or values differ.
    """
    if ours.keys() != theirs.keys():
        raise ArithmeticError(
            f"{what}: results {sorted(ours)} against {sorted(theirs)}"
        )
    worst = 0.0
    for name, expected in theirs.items():
        got = np.asarray(ours[name])
        if got.shape != expected.shape:
            raise ArithmeticError(
                f"{what}: {name} has shape {got.shape}, PyTorch's {expected.shape}"
            )
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE[dtype]:
            raise ArithmeticError(
                f"{what}: {name} differs from PyTorch's by {error:.2e} of its largest "
                f"element, allowed {TOLERANCE[dtype]:.0e}"
            )
        worst = max(worst, error)
    return worst
