# SPDX-License-Identifier: BSD-3-Clause
"""The whole models that are trained, each with a name.

A language model has an embedding, a stacked LSTM, a linear layer and cross-entropy at
every time step. A call trains it on T tokens of each row, from the state after the call
before, with clipping of the gradient's norm and Adam. A window model has a stacked
LSTM, a linear layer on the output of the last step and the mean squared error. A call
trains it for one epoch with Adam.
"""

import math
from typing import NamedTuple

LR = 2e-3
BETAS = (0.9, 0.999)
# Adam's epsilon. Keras adds it at another place of the formula than the other
# libraries, so it must be far below the root of any mean square: with the usual 1e-8,
# small gradients would give Keras other weights.
EPS = 1e-12
CLIP_NORM = 1.0


class Model(NamedTuple):
    """The sizes of a model.

    V is the number of different tokens, or 0 for a window model, whose inputs are real
    numbers; E is the number of inputs of the LSTM, and H the number of its units.
    """

    name: str
    label: str
    V: int
    E: int
    H: int
    layers: int
    T: int
    B: int
    windows: int = 0

    gates = 4  # its layers are LSTMs

    @property
    def classes(self):
        """The number of outputs of the linear layer."""
        return self.V or 1

    @property
    def items(self):
        """The number of tokens or windows that one call trains on."""
        return self.T * self.B if self.V else self.windows

    @property
    def unit(self):
        return "tokens" if self.V else "windows"

    @property
    def steps(self):
        """The number of the optimiser's steps in one call."""
        return 1 if self.V else math.ceil(self.windows / self.B)

    @property
    def flops(self):
        """The operations of one call: products of LSTM and linear layer times three."""
        recurrent = sum(
            8 * self.T * self.H * ((self.E if layer == 0 else self.H) + self.H)
            for layer in range(self.layers)
        )
        rows = self.B if self.V else self.windows
        head = 2 * self.H * self.classes * (self.T if self.V else 1)
        return 3 * rows * (recurrent + head)


MODELS = (
    Model("char-H128", "Character model", 65, 64, 128, 1, 50, 32),
    Model("char-H512x2", "Character model", 65, 64, 512, 2, 100, 64),
    Model("word-H256", "Word model", 10_000, 256, 256, 1, 35, 20),
    Model("stock-H50x3", "Stock prices, one epoch", 0, 1, 50, 3, 100, 64, 843),
)
CHECK_MODELS = (
    Model("check-tokens", "Tiny language model", 11, 5, 9, 2, 6, 3),
    Model("check-windows", "Tiny window model", 0, 1, 9, 3, 6, 4, 10),
)


def by_name(name):
    """The model of a name; for any other text ValueError lists the names."""
    found = {model.name: model for model in (*MODELS, *CHECK_MODELS)}
    if name not in found:
        raise ValueError(
            f"bench: model must be one of {', '.join(found)}, got {name!r}"
        )
    return found[name]
