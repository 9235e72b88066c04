# SPDX-License-Identifier: BSD-3-Clause
"""The parameters of a recurrent layer: their names, shapes and first values."""

import dataclasses
import math

import numpy as np

from fastrnn.native import celltable
from fastrnn.nn import init
from fastrnn.nn.schemes import zeros_
from fastrnn.util import budget


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the shapes of a layer's parameters follow from.

    Attributes
    ----------
    cell : celltable.Cell
    n_layers, n_directions : int
    input_size, hidden_size : int
    h_size, y_size : int
        Width of h, narrower than hidden_size with a projection, and of the output of
        each layer.
    bias : bool
        Whether cells have biases.
    heads : int
        How many parts the units are in, each with weights of its own from h.
    has_vectors : bool
        Whether cells have weights that multiply unit by unit.
    norm : str or None
        The kernels' name of what is normalised (`celltable.NORMS`).
    rms : bool
        Whether that is an RMS norm, which has no beta.
    highway : bool
        Whether layers after the first have a highway around them.
    learned_states : bool
        Whether initial states are parameters.
    """

    cell: celltable.Cell
    n_layers: int
    n_directions: int
    input_size: int
    hidden_size: int
    h_size: int
    y_size: int
    bias: bool
    heads: int
    has_vectors: bool
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
        cell, H, S = self.cell, self.hidden_size, self.h_size
        I = self.input_size if k == 0 else self.y_size
        G = len(cell.gates) - (cell.skips and I == H)
        of_bias = (min(G, len(cell.biased)) * H,)
        shapes = {"weight_ih": (G * H, I)}
        if not cell.is_scan:
            shapes["weight_hh"] = (G * H, S // self.heads)
        if self.bias:
            shapes["bias_ih"] = of_bias
            if not cell.is_scan:
                shapes["bias_hh"] = of_bias
        if S != H:
            shapes["weight_hr"] = (S, H)
        if self.has_vectors:
            n = cell.n_vectors
            # Peepholes have ONNX's shape; others are one vector, as biases are.
            shapes[cell.vectors] = (n, H) if "peephole" in cell.options else (n * H,)
        of_norm = {
            "ih": ("weight_norm_ih", (G * H,)),
            "hh": ("weight_norm_hh", (G * H,)),
            "c": ("weight_norm_c", (H,)),
            "c_bias": ("bias_norm_c", (H,)),
        }
        return shapes | dict(
            of_norm[part] for part in celltable.norm_parts(self.norm, self.rms)
        )

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
            for letter in self.cell.states[1:]:
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


def schemes(
    cell,
    hidden_size,
    input_forget,
    first_vectors=None,
    vector_range=None,
    highway_bias=0.0,
):
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
    vector_range : (float, float), optional
        Between which numbers the weights that multiply unit by unit begin, whatever the
        scheme.
    highway_bias : float
        What an SRU's second bias begins with; unless it is 0, whatever the scheme.
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

    is_lstm = "c" in cell.states and "f" in cell.gates and not cell.is_scan

    def remembering(array):
        init.constant_(array, 0.0)
        if is_lstm and not input_forget:
            gate = cell.gates.index("f")
            array[gate * hidden_size : (gate + 1) * hidden_size] = 1
        elif highway_bias:
            array[hidden_size:] = highway_bias

    def in_range(array, seed):
        init.uniform_(array, *vector_range, seed=seed)

    def to_one(array, seed):
        init.uniform_(array, 0.0, 1.0, seed=seed)

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
    found = {
        "keras": states
        | {
            "weight_ih": glorot,
            "weight_hh": orthonormal,
            "weight_hr": glorot,
            "weight_gate": glorot,
            "bias_ih": remembering,
            "bias_hh": zeros_,
        }
        | dict.fromkeys(vectors, to_one if cell.layer == "IndRNN" else glorot_rows),
        "torch": states
        | dict.fromkeys(drawn + vectors, from_fan_in)
        | {"weight_gate": of_width},
    }
    for scheme in found.values():
        if first_vectors is not None:
            scheme |= dict.fromkeys(vectors, given_vectors)
        elif vector_range is not None:
            scheme |= dict.fromkeys(vectors, in_range)
        if highway_bias:
            scheme["bias_ih"] = remembering
    return found
