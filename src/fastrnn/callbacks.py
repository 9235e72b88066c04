# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks of `Model.fit`: what happens between batches and epochs.

A callback is called with the names that Keras uses.  What it needs to go on from a
checkpoint it gives as `state` and takes back by `load_state`.
"""

from fastrnn.train.callbacks import (
    CSVLogger,
    EarlyStopping,
    GradientMonitor,
    ModelCheckpoint,
    layer_norms,
)
from fastrnn.train.function_callbacks import LambdaCallback, LearningRateScheduler
from fastrnn.train.history import History
from fastrnn.train.hooks import Callback, Callbacks
from fastrnn.train.schedules import ReduceLROnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "Callbacks",
    "EarlyStopping",
    "GradientMonitor",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "layer_norms",
]
