# SPDX-License-Identifier: BSD-3-Clause
"""`LSTMCell`, `GRUCell` and `RNNCell`: PyTorch's own modules with another forward."""

import torch
from torch import Tensor

from fastrnn.torch import _autocast, _autograd, _fx, _path, _weights
from fastrnn.torch._script import prepare
from fastrnn.torch._stack import StackCall


def _forward(cell, original, input, hx):
    """Run a cell on the kernels, or by PyTorch's `original` forward if they cannot."""
    if torch.compiler.is_compiling():
        return original(input, hx)  # `_compile` says why
    which = _path.cell_spec(cell)
    weights = _path.parameters_of(cell, _path.cell_names(cell))
    home = _weights.find(cell, which)
    seen = _path.recognise(home, input, hx, weights, 2, 0)
    if seen is not None:
        return _run(input, hx, weights, home, seen.requires_grad)
    if (node := _fx.record(cell, input, hx)) is not None:
        return node
    if _path.must_be_recorded():
        return original(input, hx)
    weights = _path.cell_weights(cell)
    if torch.is_autocast_enabled("cpu"):
        return _forward_in_autocast(cell, original, input, hx, weights)
    if _autocast.are_half(weights):
        return _forward_in_half(cell, original, input, hx, weights)
    if _path.cell_problem(cell, input, hx, weights):
        return original(input, hx)
    weights = _path.contiguous(weights)
    home = _weights.home(cell, which)
    _path.remember(home, input, hx, weights, 2)
    return _run(input, hx, weights, home)


def _forward_in_autocast(cell, original, input, hx, weights):
    """`_forward` while autocast is on: results have the types that PyTorch returns."""
    dtypes = _autocast.dtypes()
    if _path.cell_problem(cell, input, hx, weights, dtypes, torch.float32):
        return original(input, hx)
    compute = _autocast.compute_of(cell, input, hx, weights)
    if compute == "PyTorch":
        return original(input, hx)
    which = _path.cell_spec(cell)
    weights = _path.contiguous(weights)
    home = _weights.home(cell, which)
    result, _ = _autocast.result_dtypes(which.mode, False, input.dtype)
    with torch.autocast("cpu", enabled=False):
        input, hx = (_autocast.cast(part, torch.float32) for part in (input, hx))
        run = _run(input, hx, weights, home, compute=compute)
        return _autocast.cast(run, result)


def _forward_in_half(cell, original, input, hx, weights):
    """`_forward` of a cell of bfloat16, in copies of float32; see `modules`."""
    half = torch.bfloat16
    if _path.cell_problem(cell, input, hx, weights, (half,)):
        return original(input, hx)
    compute = _autocast.compute_of(cell, input, hx, weights)
    if compute == "PyTorch":
        return original(input, hx)
    home = _weights.home(cell, _path.cell_spec(cell))
    weights, input, hx = (
        _autocast.cast(part, torch.float32) for part in (weights, input, hx)
    )
    weights = _path.contiguous(weights)
    return _autocast.cast(_run(input, hx, weights, home, compute=compute), half)


def _run(input, hx, weights, home, requires_grad=None, compute=None):
    """Run a cell on the kernels; all arguments are known to fit."""
    has_c = home.spec.has_c
    h0, c0 = (hx or (None, None)) if has_c else (hx, None)
    batched = input.dim() == 2
    if not batched:
        input, h0, c0 = (
            None if part is None else part.unsqueeze(0) for part in (input, h0, c0)
        )
    call = StackCall(home, input, single=True, compute=compute)
    h, _, c = _autograd.run(call, input, h0, c0, weights, requires_grad)
    if not batched:
        h, c = h.squeeze(0), None if c is None else c.squeeze(0)
    return (h, c) if has_c else h


class RNNCell(torch.nn.RNNCell):
    """`torch.nn.RNNCell` on fastrnn's kernels; see `fastrnn.torch.RNN`."""

    __prepare_scriptable__ = prepare

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Advance by one time step, as `torch.nn.RNNCell.forward` does."""
        return _forward(self, super().forward, input, hx)


class LSTMCell(torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` on fastrnn's kernels; see `fastrnn.torch.LSTM`."""

    __prepare_scriptable__ = prepare

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advance by one time step, as `torch.nn.LSTMCell.forward` does."""
        return _forward(self, super().forward, input, hx)


class GRUCell(torch.nn.GRUCell):
    """`torch.nn.GRUCell` on fastrnn's kernels; see `fastrnn.torch.GRU`."""

    __prepare_scriptable__ = prepare

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Advance by one time step, as `torch.nn.GRUCell.forward` does."""
        return _forward(self, super().forward, input, hx)
