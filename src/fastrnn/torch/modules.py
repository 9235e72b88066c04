# SPDX-License-Identifier: BSD-3-Clause
"""`LSTM`, `GRU` and `RNN`: PyTorch's own modules with another forward."""

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.torch import _autocast, _autograd, _compile, _fx, _path, _weights
from fastrnn.torch._script import prepare
from fastrnn.torch._stack import StackCall


def _forward(module, original, input, hx):
    """Run layers on the kernels, or by PyTorch's `original` forward if they cannot.

    A call that is like an earlier one goes straight to the kernels. Any other call is
    examined first: whether something traces or records it, whether autocast is on, and
    whether its tensors fit.
    """
    if torch.compiler.is_compiling():
        return _compile.layers(module, original, input, hx)
    which = _path.layers_spec(module)
    weights = _path.parameters_of(module, module._flat_weights_names)
    home = _weights.find(module, which)
    batch_dim = 0 if module.batch_first else 1
    seen = _path.recognise(home, input, hx, weights, 3, batch_dim)
    if seen is not None:
        return _run_layers(module, input, hx, weights, home, seen.requires_grad)
    if (node := _fx.record(module, input, hx)) is not None:
        return node
    if _path.must_be_recorded():
        return original(input, hx)
    weights = _path.layers_weights(module)
    if torch.is_autocast_enabled("cpu"):
        return _forward_in_autocast(module, original, input, hx, weights)
    if _autocast.are_half(weights):
        return _forward_in_half(module, original, input, hx, weights)
    if _path.layers_problem(module, input, hx, weights):
        return original(input, hx)
    weights = _path.contiguous(weights)
    home = _weights.home(module, which)
    if not isinstance(input, PackedSequence):
        _path.remember(home, input, hx, weights, 3)
    return _run_layers(module, input, hx, weights, home)


def _forward_in_autocast(module, original, input, hx, weights):
    """`_forward` while autocast is on: results have the types that PyTorch returns."""
    dtypes = _autocast.dtypes()
    if _path.layers_problem(module, input, hx, weights, dtypes, torch.float32):
        return original(input, hx)
    compute = _autocast.compute_of(module, input, hx, weights)
    if compute == "PyTorch":
        return original(input, hx)
    is_packed = isinstance(input, PackedSequence)
    dtype = input.data.dtype if is_packed else input.dtype
    of_h, of_c = _autocast.result_dtypes(
        module.mode,
        _autocast.is_fused(module, input),
        dtype,
        module.proj_size > 0,
    )
    weights = _path.contiguous(weights)
    home = _weights.home(module, _path.layers_spec(module))
    with torch.autocast("cpu", enabled=False):
        input, hx = (_autocast.cast(part, torch.float32) for part in (input, hx))
        y, state = _run_layers(module, input, hx, weights, home, compute=compute)
        if home.spec.has_c:
            h_n, c_n = state
            state = _autocast.cast(h_n, of_h), _autocast.cast(c_n, of_c)
        else:
            state = _autocast.cast(state, of_h)
        return _autocast.cast(y, of_h), state


def _forward_in_half(module, original, input, hx, weights):
    """`_forward` of a module of bfloat16, in copies of float32.

    Autograd rounds the gradients, which are sums in float32, once.
    """
    half = torch.bfloat16
    if _path.layers_problem(module, input, hx, weights, (half,)):
        return original(input, hx)
    compute = _autocast.compute_of(module, input, hx, weights)
    if compute == "PyTorch":
        return original(input, hx)
    home = _weights.home(module, _path.layers_spec(module))
    weights, input, hx = (
        _autocast.cast(part, torch.float32) for part in (weights, input, hx)
    )
    weights = _path.contiguous(weights)
    y, state = _run_layers(module, input, hx, weights, home, compute=compute)
    return _autocast.cast(y, half), _autocast.cast(state, half)


def _run_layers(module, input, hx, weights, home, requires_grad=None, compute=None):
    """Run layers on the kernels; all arguments are known to fit."""
    which = home.spec
    dropout = module.dropout if module.training and which.num_layers > 1 else 0.0
    if isinstance(input, PackedSequence):
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = module.permute_hidden(hx, sorted_indices)
        call = StackCall(home, x, False, dropout, batch_sizes, compute=compute)
        y, state = _run(call, x, hx, weights, requires_grad)
        y = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return y, module.permute_hidden(state, unsorted_indices)
    batch_first = module.batch_first
    if input.dim() == 3:
        call = StackCall(home, input, batch_first, dropout, compute=compute)
        return _run(call, input, hx, weights, requires_grad)
    x = input.unsqueeze(1)  # an unbatched input is (T, I), with batch_first or without
    if hx is not None:
        hx = [h.unsqueeze(1) for h in hx] if which.has_c else hx.unsqueeze(1)
    call = StackCall(home, x, False, dropout, compute=compute)
    y, state = _run(call, x, hx, weights, requires_grad)
    if which.has_c:
        return y.squeeze(1), tuple([h.squeeze(1) for h in state])
    return y.squeeze(1), state.squeeze(1)


def _run(call, x, hx, weights, requires_grad):
    """Run a `StackCall`; return y and the last states as PyTorch's forward does."""
    if call.spec.has_c:
        h0, c0 = (None, None) if hx is None else hx
        y, h_n, c_n = _autograd.run(call, x, h0, c0, weights, requires_grad)
        return y, (h_n, c_n)
    return _autograd.run(call, x, hx, None, weights, requires_grad)[:2]


class RNN(torch.nn.RNN):
    """`torch.nn.RNN` on fastrnn's kernels.

    Everything but the speed is `torch.nn.RNN`'s: arguments, parameters, state dict,
    results, errors. A call that the kernels cannot run goes to PyTorch's own forward;
    `fastrnn.torch.explain` tells for a call whether it does.

    Examples
    --------
    >>> import torch
    >>> rnn = RNN(3, 5, nonlinearity="relu")
    >>> y, h_n = rnn(torch.randn(7, 2, 3))
    >>> y.shape, h_n.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    __prepare_scriptable__ = prepare

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layer over sequences, as `torch.nn.RNN.forward` does."""
        return _forward(self, super().forward, input, hx)


class LSTM(torch.nn.LSTM):
    """`torch.nn.LSTM` on fastrnn's kernels.

    Everything but the speed is `torch.nn.LSTM`'s: arguments, parameters, state dict,
    results, errors. A call that the kernels cannot run goes to PyTorch's own forward;
    `fastrnn.torch.explain` tells for a call whether it does.

    Notes
    -----
    Which tensors may be written to between forward and backward:

    - The outputs of all layers and cells may be, also through views. Backward then
      computes the output of the last layer again, in the time of that layer's forward.
      PyTorch raises in this case for a dense float32 LSTM of one direction and for an
      RNNCell; fastrnn does not. Writes that PyTorch does not count (through ``.data``
      or a NumPy array) cannot be noticed: the gradients are wrong then, as they are for
      PyTorch's dense LSTM.
    - The input, the initial states and the weights may not be: backward raises. It also
      raises where PyTorch would not need them, as PyTorch does not need the input of a
      layer with frozen weights.
    - What `torch.compile` returned may not be, outside of the code that was compiled.

    Examples
    --------
    >>> import torch
    >>> lstm = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> isinstance(lstm, torch.nn.LSTM)
    True
    >>> y, (h_n, c_n) = lstm(torch.randn(2, 7, 3))
    >>> y.shape, h_n.shape, c_n.shape
    (torch.Size([2, 7, 5]), torch.Size([2, 2, 5]), torch.Size([2, 2, 5]))
    """

    __prepare_scriptable__ = prepare

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layer over sequences, as `torch.nn.LSTM.forward` does."""
        return _forward(self, super().forward, input, hx)


class GRU(torch.nn.GRU):
    """`torch.nn.GRU` on fastrnn's kernels.

    Everything but the speed is `torch.nn.GRU`'s: arguments, parameters, state dict,
    results, errors. A call that the kernels cannot run goes to PyTorch's own forward;
    `fastrnn.torch.explain` tells for a call whether it does.

    Examples
    --------
    >>> import torch
    >>> gru = GRU(3, 5, bidirectional=True)
    >>> y, h_n = gru(torch.randn(7, 2, 3))
    >>> y.shape, h_n.shape
    (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """

    __prepare_scriptable__ = prepare

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layer over sequences, as `torch.nn.GRU.forward` does."""
        return _forward(self, super().forward, input, hx)
