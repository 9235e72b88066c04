# SPDX-License-Identifier: BSD-3-Clause
"""Metrics under Keras's names; figures are called as they are there."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.losses import metrics as own
from fastrnn.losses.counts import AUC, BinaryAccuracy, Precision, Recall
from fastrnn.losses.metrics import Metric, RootMeanSquaredError


def SparseCategoricalAccuracy(
    name: str = "sparse_categorical_accuracy",
) -> own.Accuracy:
    """Share of rows whose largest output is that of the right class."""
    return own.Accuracy(name=name)


def CategoricalAccuracy(name: str = "categorical_accuracy") -> own.Accuracy:
    """Share of rows whose largest output is that of the right class."""
    return own.Accuracy(name=name)


def MeanAbsoluteError(name: str = "mean_absolute_error") -> own.MeanAbsoluteError:
    """Mean absolute error."""
    return own.MeanAbsoluteError(name=name)


def MeanSquaredError(name: str = "mean_squared_error") -> own.MeanSquaredError:
    """Mean squared error."""
    return own.MeanSquaredError(name=name)


def MeanAbsolutePercentageError(
    name: str = "mean_absolute_percentage_error",
) -> own.MeanAbsolutePercentageError:
    """Mean absolute error in percent of the target."""
    return own.MeanAbsolutePercentageError(name=name)


def MeanSquaredLogarithmicError(
    name: str = "mean_squared_logarithmic_error",
) -> own.MeanSquaredLogarithmicError:
    """Mean squared difference of the logarithms of one more."""
    return own.MeanSquaredLogarithmicError(name=name)


def TopKCategoricalAccuracy(
    k: int = 5, name: str = "top_k_categorical_accuracy"
) -> own.TopK:
    """Share of rows whose right class is among the `k` largest outputs."""
    return own.TopK(k, name=name)


def SparseTopKCategoricalAccuracy(
    k: int = 5, name: str = "sparse_top_k_categorical_accuracy"
) -> own.TopK:
    """Share of rows whose right class is among the `k` largest outputs."""
    return own.TopK(k, name=name)


__all__ = [
    "AUC",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("metrics", globals())
