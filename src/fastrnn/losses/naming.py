# SPDX-License-Identifier: BSD-3-Clause
"""Metrics by name: the names here, and those that Keras has for the same."""

from collections.abc import Callable
from typing import Any

from fastrnn.losses import objectives
from fastrnn.losses.base import Loss
from fastrnn.losses.counts import COUNTS
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
)
from fastrnn.util import checks

METRICS = {
    cls.name: cls
    for cls in (
        Accuracy,
        MeanAbsoluteError,
        MeanSquaredError,
        RootMeanSquaredError,
        MeanAbsolutePercentageError,
        MeanSquaredLogarithmicError,
        Perplexity,
        LabelErrorRate,
    )
} | COUNTS
# Keras's names of the same. The figure is called as it was asked for.
ALSO = {
    "acc": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "MAE": "mae",
    "mean_absolute_error": "mae",
    "MSE": "mse",
    "mean_squared_error": "mse",
    "RootMeanSquaredError": "root_mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mean_absolute_percentage_error": "mape",
    "mean_squared_logarithmic_error": "msle",
    "Precision": "precision",
    "Recall": "recall",
    "AUC": "auc",
    "top_k_categorical_accuracy": "top_5_accuracy",
    "sparse_top_k_categorical_accuracy": "top_5_accuracy",
}
# The metric that goes with each loss of whole sequences.
_OF_SEQUENCES = {
    objectives.ConditionalRandomField.name: Accuracy.name,
    objectives.ConnectionistTemporalClassification.name: LabelErrorRate.name,
}


def by_name(
    who: str, metric: str | Metric | type[Metric] | Callable[..., Any], loss: Loss
) -> Metric:
    """The metric that a name, an object or a function stands for.

    ``"top_3_accuracy"`` is ``TopK(3)``, for any number.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is none of these.
    """
    if isinstance(metric, Metric):
        _check_loss(who, type(metric).name or metric.name, loss)
        metric.loss = loss
        return metric
    if isinstance(metric, type) and issubclass(metric, Metric):
        return by_name(who, metric(), loss)
    if callable(metric) and not isinstance(metric, type):
        return Custom(metric)
    if not isinstance(metric, str):
        raise TypeError(
            f"{who}: a metric must be a name, an object of fastrnn.metrics or a "
            f"function, got {metric!r}"
        )
    name = ALSO.get(metric, metric)
    k = name.removeprefix("top_").removesuffix("_accuracy")
    if k.isdigit() and name == f"top_{k}_accuracy":
        _check_loss(who, name, loss)
        return TopK(int(k), loss, metric)
    checks.choice(who, "metrics", name, (*METRICS, "top_5_accuracy"))
    _check_loss(who, name, loss)
    return METRICS[name](loss=loss, name=metric)


def spelled(metric: Metric) -> str | None:
    """The name by which `by_name` makes such a metric again, or None."""
    name = ALSO.get(metric.name, metric.name)
    if isinstance(metric, TopK):
        return metric.name if name == f"top_{metric.k}_accuracy" else None
    same = METRICS.get(name) is type(metric) and not metric.options()
    return metric.name if same else None


def _check_loss(who, name, loss):
    """Refuse a metric that the loss's outputs and targets do not have."""
    if not isinstance(loss, Loss):
        raise TypeError(f"{who}: loss must be a Loss, got {type(loss).__name__}")
    of_sequences = _OF_SEQUENCES.get(loss.name)
    fits = name != LabelErrorRate.name if of_sequences is None else name == of_sequences
    if not fits:
        known = "those of steps" if of_sequences is None else repr(of_sequences)
        raise ValueError(
            f"{who}: metrics with the loss {loss.name!r} must be {known} or functions, "
            f"got {name!r}"
        )
