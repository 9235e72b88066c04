# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's recurrent modules on fastrnn's kernels: one line changed, nothing else.

>>> import torch
>>> from fastrnn.torch import LSTM  # instead of: from torch.nn import LSTM
>>> y, (h_n, c_n) = LSTM(3, 5)(torch.randn(7, 2, 3))

`layers` has all other recurrent layers of fastrnn, and its LSTM, GRU and RNN with the
options that PyTorch's do not have; `MGU` and its like are here under their names, too.

`accelerate` puts the layers of a model that exists on the kernels, `patched` those of
code that builds a model. `explain` says whether a call runs on fastrnn's kernels or on
PyTorch's operators, and why. `quantize` copies a model for inference, with weights of
one byte or two.
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

from fastrnn.torch import _compile, _fx, _script, layers
from fastrnn.torch._accelerate import accelerate, patched, restore
from fastrnn.torch._classes import OURS
from fastrnn.torch._explain import Path, explain
from fastrnn.torch._quantize import QuantizedLinear, quantize
from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.modules import GRU, LSTM, RNN

# Layers that PyTorch has no module for; LSTM, GRU and RNN stay what replaces PyTorch's.
_MORE = {
    name: cls
    for name, cls in (layers.CLASSES | layers.NORMALISED).items()
    if name not in ("LSTM", "GRU", "RNN")
}
globals().update(_MORE)
from_layer = layers.Layer.from_layer

_compile.let_in(*OURS.values())
_fx.make_leaves(*OURS.values(), *layers.CLASSES.values(), *layers.NORMALISED.values())
_script.prepare_in_script_modules()

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Path",
    "QuantizedLinear",
    "RNNCell",
    "accelerate",
    "explain",
    "from_layer",
    "layers",
    "patched",
    "quantize",
    "restore",
    *_MORE,
]
