# SPDX-License-Identifier: BSD-3-Clause
"""`LSTMCell`, `GRUCell` and `RNNCell`: PyTorch's own modules with another forward."""

import torch

from fastrnn.torch import _autocast, _autograd, _compile, _path
from fastrnn.torch._script import prepare
from fastrnn.torch._stack import Call


def _forward(cell, original, input, hx):
    """The cell's output from our kernels, or from `original` where they cannot."""
    if torch.compiler.is_compiling():
        return _compile.cell(cell, original, input, hx)
    if _path.must_be_recorded():
        return original(input, hx)
    weights = _path.cell_weights(cell)
    if torch.is_autocast_enabled("cpu"):
        return _forward_in_autocast(cell, original, input, hx, weights)
    if _path.cell_problem(cell, input, hx, weights):
        return original(input, hx)
    return _run(cell, input, hx, weights)


def _forward_in_autocast(cell, original, input, hx, weights):
    dtypes = _autocast.dtypes()
    if _path.cell_problem(cell, input, hx, weights, dtypes, torch.float32):
        return original(input, hx)
    mode = _path.cell_spec(cell).mode
    result = _autocast.result_dtype(mode, False, input.dtype)
    with torch.autocast("cpu", enabled=False):
        input, hx = (_autocast.cast(part, torch.float32) for part in (input, hx))
        return _autocast.cast(_run(cell, input, hx, weights), result)


def _run(cell, input, hx, weights):
    """The cell's output from our kernels, all arguments being known to fit."""
    which = _path.cell_spec(cell)
    weights = [w if w.is_contiguous() else w.contiguous() for w in weights]
    h0, c0 = (hx or (None, None)) if which.has_c else (hx, None)
    batched = input.dim() == 2
    if not batched:
        input, h0, c0 = (
            None if part is None else part.unsqueeze(0) for part in (input, h0, c0)
        )
    h, _, c = _autograd.run(Call(which, input, single=True), input, h0, c0, weights)
    if not batched:
        h, c = h.squeeze(0), None if c is None else c.squeeze(0)
    return (h, c) if which.has_c else h


class RNNCell(torch.nn.RNNCell):
    """`torch.nn.RNNCell` on fastrnn's kernels; see `fastrnn.torch.RNN`."""

    __prepare_scriptable__ = prepare

    def forward(self, input, hx=None):
        """Advance by one time step; as `torch.nn.RNNCell.forward`."""
        return _forward(self, super().forward, input, hx)


class LSTMCell(torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` on fastrnn's kernels; see `fastrnn.torch.LSTM`."""

    __prepare_scriptable__ = prepare

    def forward(self, input, hx=None):
        """Advance by one time step; as `torch.nn.LSTMCell.forward`."""
        return _forward(self, super().forward, input, hx)


class GRUCell(torch.nn.GRUCell):
    """`torch.nn.GRUCell` on fastrnn's kernels; see `fastrnn.torch.GRU`."""

    __prepare_scriptable__ = prepare

    def forward(self, input, hx=None):
        """Advance by one time step; as `torch.nn.GRUCell.forward`."""
        return _forward(self, super().forward, input, hx)
