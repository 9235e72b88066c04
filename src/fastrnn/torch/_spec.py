# SPDX-License-Identifier: BSD-3-Clause
"""`Spec`: the cell and the sizes of a stack of recurrent layers."""

import functools

from fastrnn.native import celltable
from fastrnn.native.layout import Layout

# PyTorch's names of its cells; in lower case, they are fastrnn's names of these cells.
MODES = ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")


class Spec:
    """The cell and the sizes of a stack of layers, and what follows from them.

    Attributes
    ----------
    mode : str
        PyTorch's name of the cell: RNN_TANH, RNN_RELU, LSTM or GRU.
    layout : layout.Layout
        The stack as the kernels know it.
    S : int
        The width of h: H, or `proj_size` with a projection.
    width : int
        The width of an output of a layer, which has the h of all directions side by
        side.
    activations : tuple or None
        The functions of a cell that PyTorch does not have, as `celltable.CellOptions`
        takes them; None for PyTorch's own cells.
    reset_before : bool
        Whether a GRU applies its reset gate to h_{t-1}, and not to the product.
    weights_per_cell : int
        4, or 2 without biases; one more with a projection.
    shapes : list of tuple
        The shapes of all weights, in PyTorch's flat order.
    """

    def __init__(
        self,
        mode,
        I,
        H,
        num_layers,
        bias,
        bidirectional,
        proj_size=0,
        activations=None,
        reset_before=False,
    ):
        if mode not in MODES:
            raise ValueError(
                f"fastrnn.torch: PyTorch's recurrent modules are {', '.join(MODES)}; "
                f"got {mode!r}, which the drop-in has no form for"
            )
        cell = celltable.cell(mode.lower())
        self.mode, self.I, self.H, self.num_layers = mode, I, H, num_layers
        self.S = proj_size or H  # the width of h
        self.bias, self.bidirectional = bias, bidirectional
        self.has_c = cell.n_states == 2
        self.directions = 2 if bidirectional else 1
        self.n_cells = num_layers * self.directions
        self.width = self.S * self.directions
        self.activations, self.reset_before = activations, reset_before
        options = None
        if proj_size or activations:
            options = celltable.CellOptions(
                activations, proj_size=proj_size, reset_before=reset_before
            )
        self.layout = Layout(
            cell.name, I, H, num_layers, self.directions, bias, options
        )
        self.weights_per_cell = (4 if bias else 2) + bool(proj_size)
        gates = len(cell.gates)
        self.shapes = []
        for k in range(self.n_cells):
            cell_I = I if k < self.directions else self.width
            self.shapes += [(gates * H, cell_I), (gates * H, self.S)]
            self.shapes += [(gates * H,)] * (2 if bias else 0)
            self.shapes += [(proj_size, H)] if proj_size else []


@functools.lru_cache(maxsize=1024)
def spec(mode, I, H, num_layers, bias, bidirectional, proj_size=0):
    """The `Spec` of these arguments: the same object for the same arguments."""
    return Spec(mode, I, H, num_layers, bias, bidirectional, proj_size)


@functools.lru_cache(maxsize=1024)
def of_form(form):
    """The `Spec` of a `recurrent.pure.Form`, one layer of one direction."""
    activations = form.activations
    if activations is None and form.reset_before:
        plain = celltable.cell(form.cell).activations
        activations = tuple((name, 0.0, 0.0) for name in plain)
    return Spec(
        form.cell.upper(),
        form.input_size,
        form.hidden_size,
        1,
        form.bias,
        False,
        activations=activations,
        reset_before=form.reset_before,
    )
