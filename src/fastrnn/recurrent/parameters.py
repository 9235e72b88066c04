# SPDX-License-Identifier: BSD-3-Clause
"""The parameters of a recurrent layer: their names, shapes and first values."""

import dataclasses
import math

import numpy as np

from fastrnn.nn import init
from fastrnn.nn.schemes import zeros_
from fastrnn.util import budget


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the shapes of a layer's parameters follow from.

    Attributes
    ----------
    n_gates : int
        Of a cell.
    states : tuple of str
        Letters of its states, h first.
    n_layers, n_directions : int
    input_size, hidden_size : int
    h_size, y_size : int
        Width of h, narrower than hidden_size with a projection, and of the output of
        each layer.
    bias : bool
        Whether cells have biases.
    heads : int
        How many parts the units are in, each with weights of its own from h.
    vectors : str or None
        Name of the weights that multiply unit by unit; None where a cell has none.
    n_vectors : int
        How many rows these have.
    norm : str or None
        The kernels' name of what is normalised (`celltable.NORMS`).
    rms : bool
        Whether that is an RMS norm, which has no beta.
    highway : bool
        Whether layers after the first have a highway around them.
    learned_states : bool
        Whether initial states are parameters.
    """

    n_gates: int
    states: tuple[str, ...]
    n_layers: int
    n_directions: int
    input_size: int
    hidden_size: int
    h_size: int
    y_size: int
    bias: bool
    heads: int
    vectors: str | None
    n_vectors: int
    norm: str | None
    rms: bool
    highway: bool
    learned_states: bool

    def suffixes(self):
        """What the names of each cell's parameters end with, in the cells' order."""
        directions = ("", "_reverse")[: self.n_directions]
        return [f"_l{k}{name}" for k in range(self.n_layers) for name in directions]

    def of_cell(self, k):
        """Shapes by name, without suffix, for a cell of layer k.

        Their order is that of `layout.Layout`.
        """
        G, H, S = self.n_gates, self.hidden_size, self.h_size
        I = self.input_size if k == 0 else self.y_size
        shapes = {"weight_ih": (G * H, I), "weight_hh": (G * H, S // self.heads)}
        if self.bias:
            shapes |= {"bias_ih": (G * H,), "bias_hh": (G * H,)}
        if S != H:
            shapes["weight_hr"] = (S, H)
        if self.vectors:
            n = self.n_vectors
            shapes[self.vectors] = (n, H) if n > 1 else (H,)
        if self.norm:
            shapes["weight_norm_ih"] = (G * H,)
        if self.norm in ("apart", "cell", "carried"):
            shapes["weight_norm_hh"] = (G * H,)
        if self.norm in ("cell", "carried", "per_gate"):
            shapes["weight_norm_c"] = (H,)
            if not self.rms:
                shapes["bias_norm_c"] = (H,)
        return shapes

    def shapes(self):
        """Shapes of all parameters by name, in the order of `layout.Layout`."""
        found, width = {}, self.y_size
        for cell, suffix in enumerate(self.suffixes()):
            shapes = self.of_cell(cell // self.n_directions)
            found |= {name + suffix: shape for name, shape in shapes.items()}
        for k in range(1, self.n_layers if self.highway else 1):
            found[f"weight_gate_l{k}"] = (width, width)
            found[f"bias_gate_l{k}"] = (width,)
        if self.learned_states:
            n_cells = self.n_layers * self.n_directions
            found["h_0"] = (n_cells, self.h_size)
            for letter in self.states[1:]:
                found[f"{letter}_0"] = (n_cells, self.hidden_size)
        return found

    def check(self, who, dtype):
        """Refuse sizes that need too much memory, before shapes are listed for them."""
        D, L = self.n_directions, self.n_layers
        first, other = (
            [math.prod(shape) for shape in self.of_cell(k).values()] for k in (0, 1)
        )
        n = D * (sum(first) + (L - 1) * sum(other))
        if self.highway:
            n += (L - 1) * self.y_size * (self.y_size + 1)
        budget.check(who, n, D * L * len(first), np.dtype(dtype).itemsize)


def schemes(cell, hidden_size, input_forget, first_vectors=None):
    """By scheme, the initialisers of a recurrent layer's parameters (`nn.schemes`).

    "keras" fills as Keras does its recurrent kernels: those of all gates are one matrix
    there, whose fan-out is all of its columns, and whose rows are orthonormal.

    Parameters
    ----------
    cell : celltable.Cell
    hidden_size : int
    input_forget : bool
        Whether the forget gate is coupled to the input gate, and has no bias.
    first_vectors : ndarray, optional
        What the weights that multiply unit by unit are at first, in every scheme.
    """

    def from_fan_in(array, seed):
        init.fan_in_uniform_(array, hidden_size, seed=seed)

    def of_width(array, seed):
        init.fan_in_uniform_(array, array.shape[1], seed=seed)

    def glorot(array, seed):
        init.xavier_uniform_(array, seed=seed)

    def orthonormal(array, seed):
        init.orthogonal_(array, seed=seed)

    def glorot_rows(array, seed):
        bound = math.sqrt(3 / hidden_size)  # of a vector both fans are H
        init.uniform_(array, -bound, bound, seed=seed)

    def remembering(array):
        init.constant_(array, 0.0)
        if "c" in cell.states and "f" in cell.gates and not input_forget:
            gate = cell.gates.index("f")
            array[gate * hidden_size : (gate + 1) * hidden_size] = 1

    def given_vectors(array):
        array[...] = first_vectors

    def shut(array):  # at first most of x passes by the layer
        init.constant_(array, -1.0)

    def one(array):
        init.constant_(array, 1.0)

    states = {f"{letter}_0": zeros_ for letter in cell.states} | {"bias_gate": shut}
    states["bias_norm_c"] = zeros_
    states |= dict.fromkeys(("weight_norm_ih", "weight_norm_hh", "weight_norm_c"), one)
    drawn = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    vectors = [cell.vectors] if cell.vectors else []
    given = {} if first_vectors is None else dict.fromkeys(vectors, given_vectors)
    return {
        "keras": states
        | {
            "weight_ih": glorot,
            "weight_hh": orthonormal,
            "weight_hr": glorot,
            "weight_gate": glorot,
            "bias_ih": remembering,
            "bias_hh": zeros_,
        }
        | dict.fromkeys(vectors, glorot_rows)
        | given,
        "torch": states
        | dict.fromkeys(drawn + vectors, from_fan_in)
        | {"weight_gate": of_width}
        | given,
    }
