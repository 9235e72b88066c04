# SPDX-License-Identifier: BSD-3-Clause
"""`explain`: which implementation a call takes, and why."""

from typing import NamedTuple

import torch

from fastrnn.torch import _autocast, _path
from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.modules import GRU, LSTM, RNN


class Path(NamedTuple):
    """An implementation and the reason for it.

    Attributes
    ----------
    name : {"fastrnn", "PyTorch"}
    reason : str
    """

    name: str
    reason: str

    def __str__(self):
        return f"{self.name}: {self.reason}"


def explain(module, input, hx=None):
    """Say which implementation ``module(input, hx)`` would take here, and why.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or a cell, ours or PyTorch's.
    input : Tensor or PackedSequence
    hx : Tensor or pair of Tensor, optional

    Returns
    -------
    Path
        Its `name` and `reason`; prints as one line.

    Raises
    ------
    TypeError
        If `module` is not a recurrent layer or cell.

    Notes
    -----
    Nothing runs. The answer is for eager code under the modes that are active now
    (autocast, torch.func); `torch.compile` uses the kernels as one operator, tracing,
    `torch.export` and ONNX export record PyTorch's own operators, and a second
    derivative is taken by PyTorch's.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> gru = fastrnn.torch.GRU(3, 5)
    >>> print(explain(gru, torch.randn(7, 2, 3)))
    fastrnn: float32 on the CPU
    >>> print(explain(gru.half(), torch.randn(7, 2, 3).half()))
    PyTorch: the input is torch.float16
    """
    kind = type(module).__name__
    is_cell = isinstance(module, torch.nn.modules.rnn.RNNCellBase)
    if not is_cell and not isinstance(module, torch.nn.RNNBase):
        raise TypeError(
            f"explain: module must be a recurrent layer or cell, got {kind}"
        )
    forward = type(module).forward
    if not isinstance(module, (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell)):
        return Path("PyTorch", f"{kind} is not one of fastrnn.torch's modules")
    if not forward.__module__.startswith("fastrnn.torch."):
        return Path("PyTorch", f"{kind} has a forward of its own")
    if problem := _path.must_be_recorded():
        return Path("PyTorch", problem)
    options = ()
    if autocast := torch.is_autocast_enabled("cpu"):
        options = _autocast.dtypes(), torch.float32
    if is_cell:
        weights, problem_of = _path.cell_weights(module), _path.cell_problem
    else:
        weights, problem_of = _path.layers_weights(module), _path.layers_problem
    if problem := problem_of(module, input, hx, weights, *options):
        return Path("PyTorch", problem)
    dtype = str(weights[0].dtype).removeprefix("torch.")
    where = " inside autocast" if autocast else ""
    return Path("fastrnn", f"{dtype} on the CPU{where}")
