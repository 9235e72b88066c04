# SPDX-License-Identifier: BSD-3-Clause
"""Layers under Keras's names: ``from fastrnn.keras.layers import LSTM, Dense``.

They are this package's layers. Made by their units alone they have Keras's defaults.
"""

from typing import TYPE_CHECKING, Any

from fastrnn.keras._absent import answers
from fastrnn.nn.activation import Activation, ReLU, Softmax
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.masking import Masking
from fastrnn.nn.merging import Concatenate
from fastrnn.nn.module import Module
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.wrappers import TimeDistributed
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.train.input_shape import Input

Dense, SimpleRNN, InputLayer = Linear, RNN, Input


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
    "Bidirectional",
    "Concatenate",
    "Dense",
    "Dropout",
    "Embedding",
    "Input",
    "InputLayer",
    "LayerNormalization",
    "Masking",
    "ReLU",
    "SimpleRNN",
    "Softmax",
    "TimeDistributed",
]

# What Keras calls in two ways, and what has another meaning there.
_SHORT = {
    "AvgPool1D": "AveragePooling1D",
    "Convolution1D": "Conv1D",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "MaxPool1D": "MaxPooling1D",
}
_OTHERS = ("Attention", "RNN")

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    _answer = answers("layers", globals())

    def __getattr__(name):
        # Other layers of this package that have Keras's names, and so its meaning.
        layer = Module.in_files.get(_SHORT.get(name, name))
        return _answer(name) if layer is None or name in _OTHERS else layer
