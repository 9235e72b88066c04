# SPDX-License-Identifier: BSD-3-Clause
"""What a stack of recurrent layers is, apart from its weights and its data."""

import functools

from fastrnn import _core

_CELLS = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}
_GATES = {"LSTM": 4, "GRU": 3}


class Spec:
    """Cell and sizes of a stack, and what follows from them.

    Attributes
    ----------
    mode : str
        PyTorch's name of the cell: RNN_TANH, RNN_RELU, LSTM or GRU.
    cell : int
        The kernels' number of it.
    options : Options or None
        What the kernels have to know of a projection.
    width : int
        Of an output: both directions' h.
    weights_per_cell : int
        4, or 2 without biases; one more with a projection.
    shapes : list of tuple
        Of the weights, in PyTorch's flat order.
    """

    def __init__(self, mode, I, H, num_layers, bias, bidirectional, proj_size=0):
        self.mode, self.I, self.H, self.num_layers = mode, I, H, num_layers
        self.S = proj_size or H  # the width of h
        self.options = _core.Options(proj_size=proj_size) if proj_size else None
        self.bias, self.bidirectional = bias, bidirectional
        self.cell = _core.CELLS[_CELLS[mode]]
        self.has_c = mode == "LSTM"
        self.directions = 2 if bidirectional else 1
        self.n_cells = num_layers * self.directions
        self.width = self.S * self.directions
        self.weights_per_cell = (4 if bias else 2) + bool(proj_size)
        gates = _GATES.get(mode, 1)
        self.shapes = []
        for k in range(self.n_cells):
            cell_I = I if k < self.directions else self.width
            self.shapes += [(gates * H, cell_I), (gates * H, self.S)]
            self.shapes += [(gates * H,)] * (2 if bias else 0)
            self.shapes += [(proj_size, H)] if proj_size else []

    def by_name(self, own):
        """One cell's weights, or what belongs to each: W, R, b_ih, b_hh, W_hr."""
        W, R, *others = own
        b_ih, b_hh = others[:2] if self.bias else (None, None)
        return W, R, b_ih, b_hh, None if self.options is None else others[-1]


@functools.lru_cache(maxsize=1024)
def spec(mode, I, H, num_layers, bias, bidirectional, proj_size=0):
    """The `Spec` of these arguments, one object for each."""
    return Spec(mode, I, H, num_layers, bias, bidirectional, proj_size)
