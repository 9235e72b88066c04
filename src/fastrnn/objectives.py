# SPDX-License-Identifier: BSD-3-Clause
"""Losses by name for `Model.compile`: per-row weights, and targets as Keras takes them.

A row is what has a loss of its own: a sample, or a step of a sample.  A weight
multiplies its row's loss, and the sum is divided by the number of rows, whatever the
weights are, as in Keras.  Plain mean squared error and cross-entropy are one call to a
kernel; everything else is NumPy on the model's output.
"""

from fastrnn.losses.base import Loss
from fastrnn.losses.objectives import (
    LOSSES,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    ConditionalRandomField,
    ConnectionistTemporalClassification,
    Custom,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    SparseCategoricalCrossentropy,
    by_name,
    class_weights,
)

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "ConditionalRandomField",
    "ConnectionistTemporalClassification",
    "Custom",
    "Huber",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "SparseCategoricalCrossentropy",
    "by_name",
    "class_weights",
]
