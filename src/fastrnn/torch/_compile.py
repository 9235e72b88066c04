# SPDX-License-Identifier: BSD-3-Clause
"""Calls of layers that `torch.compile` or `torch.export` traces.

Compiled code calls ``fastrnn::recurrence``, one operator for a whole stack. Cells, and
layers that are given a single time step, become PyTorch's own operators instead, which
the compiler can fuse with each other and with the operators around them. A cell of
PyTorch's operators takes 0.4 to 0.9 times the time of a cell that is one operator of
fastrnn, at H of 32 to 512 and 8 to 64 batch rows, in inference and in training
(``python -m bench.drop_in --compiled``). Where the kernels cannot run a call, the
compiled program ends a graph before the call and begins another one after it, as it
always does for PyTorch's own layers.

Exported programs also get PyTorch's own operators, because an exported program is a
file that has to load, or to become an ONNX file, where fastrnn is not installed.
"""

import importlib.abc
import importlib.util
import sys

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.torch import _compat, _operator

_BUILDER = "torch._dynamo.variables.builder"
_CELLS = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}
_OURS = []  # fastrnn's classes, which torch.compile may trace


@_compat.outside_the_graph
def _outside_the_graph(module, input, hx):
    """Run forward eagerly, between two graphs of the compiled program."""
    return module.forward(input, hx)


def layers(module, original, input, hx):
    """`modules._forward` while torch.compile or torch.export traces the module."""
    if _compat.is_exporting():
        return original(input, hx)
    # The batch sizes of a PackedSequence are data, which a tracer does not have.
    if isinstance(input, PackedSequence):
        return _outside_the_graph(module, input, hx)
    weights = [getattr(module, name) for name in module._flat_weights_names]
    batched = input.dim() == 3
    B = input.shape[0 if module.batch_first else 1] if batched else None
    D = 2 if module.bidirectional else 1
    n_cells = module.num_layers * D
    outer = (n_cells, B) if batched else (n_cells,)
    widths = (module.proj_size or module.hidden_size, module.hidden_size)
    if input.dim() not in (2, 3) or _unfit(
        input, hx, module.mode == "LSTM", outer, widths, weights, module
    ):
        return _outside_the_graph(module, input, hx)
    h0, c0 = hx if module.mode == "LSTM" and hx is not None else (hx, None)
    x = input
    if not batched:
        x = input.unsqueeze(1)
        h0, c0 = (None if h is None else h.unsqueeze(1) for h in (h0, c0))
    dropout = module.dropout if module.training and module.num_layers > 1 else 0.0
    batch_first = module.batch_first and batched
    if is_one_step(module, input):
        y, h_n, c_n = _one_step(x.flatten(0, 1), h0, c0, weights, module, n_cells)
    else:
        y, h_n, c_n = _record(
            x,
            h0,
            c0,
            weights,
            module.mode,
            module.num_layers,
            module.bidirectional,
            batch_first,
            False,
            dropout,
        )
    if not batched:
        y, h_n = y.squeeze(1), h_n.squeeze(1)
        c_n = c_n.squeeze(1) if module.mode == "LSTM" else c_n
    elif module.batch_first:
        y = y.transpose(0, 1)
    return y, ((h_n, c_n) if module.mode == "LSTM" else h_n)


def is_one_step(module, input):
    """Whether a module of layers runs as cells, since it is given one dense step."""
    T = input.shape[1 if module.batch_first and input.dim() == 3 else 0]
    between = module.dropout and module.training and module.num_layers > 1
    return T == 1 and not (module.proj_size or between)


def _one_step(x, h0, c0, weights, module, n_cells):
    """Run a single time step by PyTorch's cells.

    Parameters
    ----------
    x : Tensor, shape (B, I)

    Returns
    -------
    y : Tensor, shape (1, B, D * H)
    h_n, c_n : Tensor, shape (num_layers * D, B, H)
        c_n is None but for an LSTM.
    """
    cell, D = _CELLS[module.mode], 2 if module.bidirectional else 1
    zero = x.new_zeros(x.shape[0], module.hidden_size)
    per_cell, h_n, c_n = len(weights) // n_cells, [], []
    for k in range(n_cells):
        own = weights[k * per_cell : (k + 1) * per_cell]
        h = zero if h0 is None else h0[k]
        if module.mode == "LSTM":
            h, c = cell(x, (h, zero if c0 is None else c0[k]), *own)
            c_n.append(c)
        else:
            h = cell(x, h, *own)
        h_n.append(h)
        if k % D == D - 1:  # all directions of this layer are done
            x = torch.cat(h_n[-D:], 1) if D > 1 else h
    return x.unsqueeze(0), torch.stack(h_n), torch.stack(c_n) if c_n else None


def _unfit(input, hx, has_c, outer, widths, weights, module):
    """Whether the kernels cannot run a call, asked in ways that a tracer can follow.

    `_path.layers_problem` looks at more, such as addresses, which tensors that are
    traced do not have.
    """
    dtype = input.dtype
    if (
        torch.is_autocast_enabled("cpu")
        or dtype not in (torch.float32, torch.float64)
        or input.device.type != "cpu"
        or input.shape[-1] != module.input_size
        or input.numel() == 0
    ):
        return True
    states = () if hx is None else hx if has_c else (hx,)
    if hx is not None and has_c and len(hx) != 2:
        return True
    for tensor in (*states, *weights):
        if tensor.dtype != dtype or tensor.device.type != "cpu":
            return True
    for state, width in zip(states, widths, strict=False):
        if state.shape != (*outer, width):
            return True
    return False


def _record(x, h0, c0, weights, *options):
    """Call the operator; `keep` is True if autograd will need a backward of it."""
    keep = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, h0, c0, *weights)
    )
    return _operator.recurrence(x, h0, c0, weights, *options, keep)[:3]


# -- Letting torch.compile trace fastrnn's layers --------------------------------------
#
# torch.compile breaks its graph at every module that is a torch.nn.RNN, LSTM or GRU by
# `isinstance`. fastrnn's modules pass that test, so that code that was written for
# torch.nn accepts them. PyTorch offers one switch, `torch._dynamo.config.allow_rnn`,
# for the whole process: left on, it would change how the user's own torch.nn layers
# compile. The functions of torch.compiler do not help, because they are about
# functions, while the compiler breaks its graph when it meets the module, before it
# looks at any function of it. So `_teach` wraps the compiler's method that meets
# modules, and turns the switch on for modules of fastrnn alone.


def let_in(*classes):
    """Let torch.compile trace modules of these classes."""
    _OURS.extend(classes)
    if _BUILDER in sys.modules:
        _teach(sys.modules[_BUILDER])
    else:
        # The compiler takes seconds to import, and most programs never need it, so it
        # is not imported here. PyTorch has no callback for the moment when somebody
        # else imports it, and none of its entry points runs then; Python has no
        # documented callback for imports, either. A finder on sys.meta_path is what is
        # left.
        sys.meta_path.insert(0, _Finder())


def _teach(builder):
    """Let the compiler, whose module `builder` is, trace the classes in `_OURS`."""
    kind = getattr(builder, "VariableBuilder", None)
    original = getattr(kind, "wrap_module", None)
    if original is None or not hasattr(torch._dynamo.config, "allow_rnn"):
        _compat.warn(
            "_dynamo.config.allow_rnn, or nothing that reads it",
            "torch.compile breaks its graph at each of our layers",
        )
        return

    def wrap_module(self, value):
        if not isinstance(value, tuple(_OURS)):
            return original(self, value)
        with torch._dynamo.config.patch(allow_rnn=True):
            return original(self, value)

    kind.wrap_module = wrap_module


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the compiler's module by the other finders, and calls `_teach` with it.

    `_teach` runs as soon as the module has been executed. The finder removes itself
    from sys.meta_path at the first import of the module.
    """

    def find_spec(self, name, path, target=None):
        if name != _BUILDER:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        run = found.loader.exec_module

        def exec_module(module):
            run(module)
            _teach(module)

        found.loader.exec_module = exec_module
        return found
