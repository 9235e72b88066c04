# SPDX-License-Identifier: BSD-3-Clause
"""Keras's names for this package's parts, and Keras's models as this package's.

A program for Keras runs with one import changed, ``from fastrnn import keras`` in place
of ``from tensorflow import keras`` or ``import keras``, and `layers`, `models`,
`optimizers`, `losses`, `metrics`, `callbacks`, `utils` and `preprocessing` have what
tutorials use. What is not here is answered for when it is used: COMING_FROM_KERAS.md
has the table.

`LSTM`, `GRU` and `SimpleRNN` are Keras's own layers on this package's kernels, and
`accelerate` puts the layers of a Keras model that exists on them: these need Keras 3,
run on each of its backends, and `explain` says whether they do. ``layers.LSTM`` is this
package's own layer, which needs no Keras.

`load` reads ``.keras`` and ``.h5`` files with h5py (``pip install 'fastrnn[keras]'``);
neither Keras nor TensorFlow is needed, and no code in a file is executed.
`layer_weights` converts the arrays that ``layer.get_weights()`` returns.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from fastrnn.keras import (
    callbacks,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    preprocessing,
    utils,
)
from fastrnn.keras._absent import answers
from fastrnn.keras._build import load
from fastrnn.keras._weights import layer_weights
from fastrnn.losses.base import Loss
from fastrnn.losses.metrics import Metric
from fastrnn.nn.activation import Activation
from fastrnn.nn.masking import Masking
from fastrnn.train.input_shape import Input
from fastrnn.train.model import Model
from fastrnn.train.optimizer import Optimizer
from fastrnn.train.sequential import MaskedSequential, Sequential

__all__ = [
    "Activation",
    "Input",
    "Loss",
    "MaskedSequential",
    "Masking",
    "Metric",
    "Model",
    "Optimizer",
    "Sequential",
    "callbacks",
    "layer_weights",
    "layers",
    "load",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "preprocessing",
    "utils",
]

# Imported at first use, since they import Keras itself.
_DROP_IN = ("GRU", "LSTM", "SimpleRNN", "accelerate", "explain", "restore")

if TYPE_CHECKING:
    from fastrnn.keras.drop_in import GRU as GRU
    from fastrnn.keras.drop_in import LSTM as LSTM
    from fastrnn.keras.drop_in import SimpleRNN as SimpleRNN
    from fastrnn.keras.drop_in import accelerate as accelerate
    from fastrnn.keras.drop_in import explain as explain
    from fastrnn.keras.drop_in import restore as restore
else:  # a checker that saw this would believe in every name
    _answer = answers("", {**globals(), **dict.fromkeys(_DROP_IN)})

    def __getattr__(name):
        if name not in _DROP_IN:
            return _answer(name)
        return getattr(importlib.import_module("fastrnn.keras.drop_in"), name)


def __dir__() -> list[str]:
    has_keras = importlib.util.find_spec("keras") is not None
    return sorted({*globals(), *(_DROP_IN if has_keras else ())})
