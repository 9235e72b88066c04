# SPDX-License-Identifier: BSD-3-Clause
"""Keras's names for this package's parts, and Keras's models as this package's.

A program for Keras runs with one import changed, ``from fastrnn import keras`` in place
of ``from tensorflow import keras`` or ``import keras``, and `layers`, `models`,
`optimizers`, `losses`, `metrics`, `callbacks`, `utils` and `preprocessing` have what
tutorials use. What is not here is answered for when it is used: COMING_FROM_KERAS.md
has the table.

`load` reads ``.keras`` and ``.h5`` files with h5py (``pip install 'fastrnn[keras]'``);
neither Keras nor TensorFlow is needed, and no code in a file is executed.
`layer_weights` converts the arrays that ``layer.get_weights()`` returns.
"""

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

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("", globals())
