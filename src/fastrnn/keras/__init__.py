# SPDX-License-Identifier: BSD-3-Clause
"""Keras models as fastrnn layers: files of Keras 1 to 3, and weights of one layer.

`load` reads ``.keras`` and ``.h5`` files with h5py (``pip install 'fastrnn[keras]'``);
neither Keras nor TensorFlow is needed, and no code in a file is executed.
`layer_weights` converts the arrays that ``layer.get_weights()`` returns.
"""

from fastrnn.keras._build import load
from fastrnn.keras._weights import layer_weights
from fastrnn.nn.activation import Activation
from fastrnn.nn.masking import Masking
from fastrnn.train.sequential import MaskedSequential

__all__ = ["Activation", "MaskedSequential", "Masking", "layer_weights", "load"]
