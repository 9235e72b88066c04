# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's recurrent modules on fastrnn's kernels: one line changed, nothing else.

>>> import torch
>>> from fastrnn.torch import LSTM  # instead of: from torch.nn import LSTM
>>> y, (h_n, c_n) = LSTM(3, 5)(torch.randn(7, 2, 3))

`accelerate` puts the layers of a model that exists on the kernels, `patched` those of
code that builds a model. `explain` says whether a call runs on fastrnn's kernels or on
PyTorch's operators, and why.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "fastrnn.torch needs PyTorch, which is not installed: "
        "pip install 'fastrnn[torch]'",
        name=error.name,
    ) from error

from fastrnn.recurrent import table
from fastrnn.torch import _compile, _fx, _script
from fastrnn.torch._accelerate import accelerate, patched, restore
from fastrnn.torch._classes import OURS
from fastrnn.torch._explain import Path, explain
from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.modules import GRU, LSTM, RNN

_compile.let_in(*OURS.values())
_fx.make_leaves(*OURS.values())
_script.prepare_in_script_modules()

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Path",
    "RNNCell",
    "accelerate",
    "explain",
    "patched",
    "restore",
]


def __getattr__(name):
    if name in table.kinds():
        raise AttributeError(
            f"fastrnn.torch has no {name}: PyTorch has no module of that kind which "
            f"could be replaced; fastrnn.{name} takes NumPy arrays"
        )
    raise AttributeError(f"module 'fastrnn.torch' has no attribute {name!r}")
