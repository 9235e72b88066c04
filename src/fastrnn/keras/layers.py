# SPDX-License-Identifier: BSD-3-Clause
"""Layers under Keras's names: ``from fastrnn.keras.layers import LSTM, Dense``.

They are this package's layers. Made by their units alone they have Keras's defaults.
"""

from typing import TYPE_CHECKING, Any

from fastrnn.keras._absent import answers
from fastrnn.nn.activation import Activation, ReLU, Softmax
from fastrnn.nn.batch_norm import BatchNormalization
from fastrnn.nn.convolution import Conv1D
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.masking import Masking
from fastrnn.nn.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.pooling import (
    AveragePooling1D,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
)
from fastrnn.nn.reshaping import Flatten, Permute, RepeatVector, Reshape
from fastrnn.nn.spatial_dropout import SpatialDropout1D
from fastrnn.nn.wrappers import TimeDistributed
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.train.input_shape import Input

Dense, SimpleRNN, InputLayer = Linear, RNN, Input
# What Keras calls in two ways.
Convolution1D = Conv1D
AvgPool1D, MaxPool1D = AveragePooling1D, MaxPooling1D
GlobalAvgPool1D, GlobalMaxPool1D = GlobalAveragePooling1D, GlobalMaxPooling1D


def LayerNormalization(
    axis: int = -1,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    **kwargs: Any,
) -> LayerNorm:
    """A `LayerNorm` of the last axis, with Keras's defaults; its size is found out.

    Parameters
    ----------
    axis : int
        -1.
    epsilon : float > 0
    center, scale : bool
        Whether there are a bias and a weight.
    **kwargs
        As `LayerNorm` takes them.

    Returns
    -------
    LayerNorm

    Examples
    --------
    >>> LayerNormalization()
    LayerNorm(None, eps=0.001)
    """
    options = {"eps": epsilon, "elementwise_affine": scale, "bias": center, **kwargs}
    if center and not scale:
        raise ValueError(
            "LayerNormalization: center must be False with scale=False: a bias comes "
            "with a weight"
        )
    return LayerNorm(None, **({} if axis == -1 else {"axis": axis}), **options)


__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "Add",
    "Average",
    "AveragePooling1D",
    "AvgPool1D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv1D",
    "Convolution1D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAvgPool1D",
    "GlobalMaxPool1D",
    "GlobalMaxPooling1D",
    "Input",
    "InputLayer",
    "LayerNormalization",
    "Masking",
    "MaxPool1D",
    "MaxPooling1D",
    "Maximum",
    "Minimum",
    "Multiply",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Reshape",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "Subtract",
    "TimeDistributed",
]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("layers", globals())
