# SPDX-License-Identifier: BSD-3-Clause
"""Keras 3's own recurrent layers on fastrnn's kernels, on whichever backend Keras runs.

`layers` has the classes, `accelerate` and `explain` the functions that have a model.
`forms` says which cell of the kernels a layer of Keras is, and `paths` whether they can
run a call. Each of `torch`, `tensorflow` and `jax` runs one on a backend of Keras's.
"""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise ModuleNotFoundError(
        "fastrnn.keras: LSTM, GRU, SimpleRNN, accelerate, restore and explain need "
        "Keras 3, which is not installed: pip install keras, and one of torch, "
        "tensorflow and jax",
        name=error.name,
    ) from error

from fastrnn.keras.drop_in import bidirectional
from fastrnn.keras.drop_in._accelerate import accelerate, restore
from fastrnn.keras.drop_in._explain import explain
from fastrnn.keras.drop_in.layers import GRU, LSTM, SimpleRNN

bidirectional.keep_classes()

__all__ = ["GRU", "LSTM", "SimpleRNN", "accelerate", "explain", "restore"]
