# SPDX-License-Identifier: BSD-3-Clause
"""Metrics for `Model.compile`: means over all rows that an epoch has seen.

A metric is given the model's output and the targets batch by batch, in any shapes that
the loss takes, and gives one number at the end.  Rows that a mask leaves out do not
enter, nor do weights, as in Keras.
"""

from fastrnn.losses.metrics import (
    METRICS,
    Accuracy,
    Custom,
    LabelErrorRate,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    Perplexity,
    TopK,
    by_name,
    edit_distance,
)

__all__ = [
    "METRICS",
    "Accuracy",
    "Custom",
    "LabelErrorRate",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "Perplexity",
    "TopK",
    "by_name",
    "edit_distance",
]
