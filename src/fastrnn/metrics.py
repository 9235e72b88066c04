# SPDX-License-Identifier: BSD-3-Clause
"""Metrics for `Model.compile`: means over all rows that an epoch has seen.

A metric is given the model's output and the targets batch by batch, in any shapes that
the loss takes, and gives one number at the end.  Rows that a mask leaves out do not
enter, nor do weights, as in Keras.
"""

from fastrnn.losses.counts import AUC, BinaryAccuracy, Precision, Recall
from fastrnn.losses.metrics import (
    Accuracy,
    Custom,
    LabelErrorRate,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Metric,
    Perplexity,
    RootMeanSquaredError,
    TopK,
    edit_distance,
)
from fastrnn.losses.naming import METRICS, by_name

__all__ = [
    "AUC",
    "METRICS",
    "Accuracy",
    "BinaryAccuracy",
    "Custom",
    "LabelErrorRate",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Perplexity",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "TopK",
    "by_name",
    "edit_distance",
]
