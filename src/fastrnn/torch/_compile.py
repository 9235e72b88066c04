# SPDX-License-Identifier: BSD-3-Clause
"""What a call is under `torch.compile`, and under `torch.export`.

Compiled code calls ``fastrnn::recurrence``, one operator for a whole stack.  A cell,
and a layer that is given a single time step, are PyTorch's operators: the compiler
fuses them with each other and with what is around them.  A cell takes 0.4 to 0.9 of the
time that it takes as an operator of ours, at H 32 to 512 and 8 to 64 rows, in inference
and training (``python -m bench.drop_in --compiled``).  What the kernels do not run is a
call between two graphs, as PyTorch's own layers always are.
Exported programs get PyTorch's own operators, too: they are files that have to load,
and become ONNX nodes, where fastrnn is not installed.
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
_OURS = []  # classes that torch.compile may look into


@_compat.outside_the_graph
def _outside_the_graph(module, input, hx):
    """A call between two graphs, as eager code makes it."""
    return module.forward(input, hx)


def layers(module, original, input, hx):
    """A module of layers while something traces it; as `modules._forward`."""
    if _compat.is_exporting():
        return original(input, hx)
    if isinstance(input, PackedSequence):  # what its sizes are is data
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
    """Whether a module of layers is to run as cells: it is given one dense step."""
    T = input.shape[1 if module.batch_first and input.dim() == 3 else 0]
    between = module.dropout and module.training and module.num_layers > 1
    return T == 1 and not (module.proj_size or between)


def _one_step(x, h0, c0, weights, module, n_cells):
    """y of shape (1, B, D * H), h_n and c_n of a single time step; x is (B, I)."""
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
        if k % D == D - 1:  # the layer below is complete
            x = torch.cat(h_n[-D:], 1) if D > 1 else h
    return x.unsqueeze(0), torch.stack(h_n), torch.stack(c_n) if c_n else None


def _unfit(input, hx, has_c, outer, widths, weights, module):
    """Whether PyTorch has to run this; in terms that its compiler can follow."""
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
    keep = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, h0, c0, *weights)
    )
    return _operator.recurrence(x, h0, c0, weights, *options, keep)[:3]


# -- torch.compile stops at any torch.nn.LSTM, ours too, unless told otherwise ------
#
# Its test is `isinstance`, and our classes have to pass that test everywhere else: code
# that was written for torch.nn.LSTM is to take them. PyTorch offers one switch for a
# whole process, `torch._dynamo.config.allow_rnn`. Left on, it would change how the
# user's own torch.nn layers compile, so it is on only while the compiler looks at a
# module of ours, and for that the compiler's one method that looks at modules is
# wrapped. The method cannot be wrapped when fastrnn.torch is imported, because the
# compiler's modules take seconds to import and most programs never do. PyTorch has no
# callback for the moment when they are, hence the finder, which removes itself then.


def let_in(*classes):
    """Let torch.compile look into modules of these classes."""
    _OURS.extend(classes)
    if _BUILDER in sys.modules:
        _teach(sys.modules[_BUILDER])
    else:
        # Wait until somebody else needs the compiler.
        sys.meta_path.insert(0, _Finder())


def _teach(builder):
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
    """Finds the compiler's module as others do, and has it taught once it has run."""

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
