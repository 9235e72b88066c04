# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks under Keras's names."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.train.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint
from fastrnn.train.function_callbacks import LambdaCallback, LearningRateScheduler
from fastrnn.train.history import History
from fastrnn.train.hooks import Callback
from fastrnn.train.schedules import ReduceLROnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("callbacks", globals())
