# SPDX-License-Identifier: BSD-3-Clause
"""Losses under Keras's names."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.losses.base import Loss
from fastrnn.losses.objectives import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    SparseCategoricalCrossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "SparseCategoricalCrossentropy",
]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("losses", globals())
