# SPDX-License-Identifier: BSD-3-Clause
"""Losses by name for `Model.compile`: per-row weights, and targets as Keras takes them.

A row is what has a loss of its own: a sample, or a step of a sample.  A weight
multiplies its row's loss, and the sum is divided by the number of rows, whatever the
weights are, as in Keras.  Plain mean squared error and cross-entropy are one call to a
kernel; everything else is NumPy on the model's output.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fastrnn import _check, losses
from fastrnn._attributes import by
from fastrnn._loss import Loss, check_fits
from fastrnn.pairs import IGNORED
from fastrnn.structured import (
    ConditionalRandomField,
    ConnectionistTemporalClassification,
)


class MeanSquaredError(Loss):
    """Mean over the last axis of squared differences."""

    name = "mse"

    def rows(self, pred, target):
        difference = pred - target
        width = pred.shape[-1]
        return np.mean(difference**2, axis=-1), difference * (2 / width)

    def __call__(self, pred, target, weight=None):
        if weight is not None:
            return super().__call__(pred, target, weight)
        return losses.mse_loss(*self.prepare(pred, target))


class MeanAbsoluteError(Loss):
    """Mean over the last axis of absolute differences."""

    name = "mae"

    def rows(self, pred, target):
        difference = pred - target
        width = pred.shape[-1]
        return np.mean(abs(difference), axis=-1), np.sign(difference) * (1 / width)


class Huber(Loss):
    """Half the squared difference up to `delta`, linear from there on.

    Parameters
    ----------
    delta : float > 0

    Examples
    --------
    >>> loss, d = Huber()(np.array([[0.5], [3.0]]), [[0.0], [0.0]])
    >>> loss, d.tolist()
    (1.3125, [[0.25], [0.5]])
    """

    name = "huber"
    _changeable: ClassVar = {"delta": by(_check.real_in, "(0, inf)")}

    def __init__(self, delta=1.0):
        self.delta = delta

    def rows(self, pred, target):
        difference = pred - target
        size, delta, width = abs(difference), self.delta, pred.shape[-1]
        near = 0.5 * difference**2
        values = np.where(size <= delta, near, delta * (size - 0.5 * delta))
        d = np.clip(difference, -delta, delta) * (1 / width)
        return np.mean(values, axis=-1), d


class BinaryCrossentropy(Loss):
    """Cross-entropy of each output's own yes or no, from logits, in nats."""

    name = "binary_crossentropy"
    classes = True

    def prepare(self, pred, target):
        pred, target = super().prepare(pred, target)
        self.check_range(target)
        return pred, target

    def check_range(self, target):
        """Refuse targets that are no probabilities."""
        if target.size and not (target.min() >= 0 and target.max() <= 1):
            wrong = target[~((target >= 0) & (target <= 1))][0]
            raise ValueError(f"{self.name}: y must be in [0, 1], got {wrong}")

    def rows(self, pred, target):
        small = np.exp(-abs(pred))  # in (0, 1]: nothing overflows
        values = np.maximum(pred, 0) - pred * target + np.log1p(small)
        sigmoid = np.where(pred >= 0, 1, small) / (1 + small)
        return np.mean(values, axis=-1), (sigmoid - target) * (1 / pred.shape[-1])


def _log_softmax(pred):
    shifted = pred - pred.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


class CategoricalCrossentropy(Loss):
    """Cross-entropy with a distribution over classes (one-hot, say), from logits."""

    name = "categorical_crossentropy"
    classes = True

    def rows(self, pred, target):
        log_p = _log_softmax(pred)
        total = np.sum(target, axis=-1, keepdims=True)
        return -np.sum(target * log_p, axis=-1), np.exp(log_p) * total - target


class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy with class indices, from logits, in nats.

    A target of -100 counts for nothing: its row is not among those divided by.
    """

    name = "sparse_categorical_crossentropy"
    classes = True
    ignore_index = IGNORED

    def count(self, pred, target):
        return int(np.count_nonzero(np.asarray(target) != self.ignore_index))

    def prepare(self, pred, target):
        target = _check.integer_array(self.name, "y", target)
        if target.ndim == pred.ndim and target.shape[-1] == 1:
            target = target[..., 0]
        whose = "the model's output without its last axis"
        check_fits(self.name, target, whose, pred.shape[:-1], pred)
        return pred, target

    def counted(self, pred, target):
        """Outputs and class indices of the rows that count."""
        keep = target != self.ignore_index
        target = _check.index_array(self.name, "y", target[keep], pred.shape[-1])
        return pred[keep], target, keep

    def rows(self, pred, target):
        """As of `Loss`, with zeros in rows that do not count."""
        kept, classes, keep = self.counted(pred, target)
        log_p = _log_softmax(kept)
        at = np.arange(classes.size), classes
        row_losses = np.zeros(target.shape, pred.dtype)
        row_losses[keep] = -log_p[at]
        d_kept = np.exp(log_p)
        d_kept[at] -= 1
        d = np.zeros_like(pred)
        d[keep] = d_kept
        return row_losses, d

    def __call__(self, pred, target, weight=None):
        pred, target = self.prepare(pred, target)
        if weight is None:
            return losses.cross_entropy(pred, target, self.ignore_index)
        loss, d = super().__call__(pred, target, weight)
        share = np.count_nonzero(target != self.ignore_index) / max(1, target.size)
        return (loss / share, d / d.dtype.type(share)) if share else (float("nan"), d)


class Custom(Loss):
    """A function ``(pred, target) -> (loss, dpred)`` as a loss; no weights.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function):
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def attach(self, model):
        """Nothing: the function has what it needs."""

    def count(self, pred, target):
        return len(pred)

    def __call__(self, pred, target, weight=None):
        if weight is not None:
            raise ValueError(
                f"{self.name}: weights go with the losses that have a name "
                f"({', '.join(LOSSES)}), got them with a function"
            )
        return self.function(pred, target)


LOSSES = {
    cls.name: cls
    for cls in (
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        ConditionalRandomField,
        ConnectionistTemporalClassification,
    )
}
# Names that Keras has in addition.
_LONG = {
    "mean_squared_error": MeanSquaredError.name,
    "mean_absolute_error": MeanAbsoluteError.name,
}
_FUNCTIONS = {
    losses.mse_loss: MeanSquaredError.name,
    losses.cross_entropy: SparseCategoricalCrossentropy.name,
}


def by_name(who, loss):
    """The loss that a name, an object or a function stands for.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is none of these.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss) and not isinstance(loss, type):
        loss = _FUNCTIONS.get(loss, loss)
        if callable(loss):
            return Custom(loss)
    if not isinstance(loss, str):
        raise TypeError(
            f"{who}: loss must be a name, an object of fastrnn.objectives or a "
            f"function, got {loss!r}"
        )
    loss = _LONG.get(loss, loss)
    return LOSSES[_check.choice(who, "loss", loss, tuple(LOSSES))]()


def class_weights(who, class_weight, loss, y):
    """The weight of every row's class.

    Parameters
    ----------
    class_weight : mapping of int to float, or "balanced"
        Classes not named weigh 1. "balanced" gives each class the same share of the
        sum: rows / (classes * rows of the class).
    loss : Loss
    y : ndarray or list of ndarray
        All targets: class indices, or distributions over classes (the likeliest
        counts).

    Returns
    -------
    ndarray of float64, or list of these
        A weight for each row.

    Raises
    ------
    ValueError, TypeError
        If the loss has no classes, or a class or weight is not one.
    """
    if not loss.classes:
        raise ValueError(
            f"{who}: class_weight needs a loss with classes, got {loss.name!r}"
        )
    if isinstance(y, list):  # of many lengths
        ends = np.cumsum([len(one) for one in y])[:-1]
        flat = class_weights(who, class_weight, loss, np.concatenate(y))
        return np.split(flat, ends)
    if isinstance(loss, CategoricalCrossentropy):
        y = y.argmax(axis=-1)
    elif isinstance(loss, BinaryCrossentropy):
        y = np.asarray(y[..., 0] if y.ndim > 1 and y.shape[-1] == 1 else y)
        if y.size and not np.isin(y, (0, 1)).all():
            raise ValueError(f"{who}: class_weight needs y of 0 and 1")
        y = y.astype(np.int64)
    known = y != SparseCategoricalCrossentropy.ignore_index
    if isinstance(class_weight, str):
        _check.choice(who, "class_weight", class_weight, ("balanced",))
        found, counts = np.unique(y[known], return_counts=True)
        values = counts.sum() / (found.size * counts)
        class_weight = dict(zip(found.tolist(), values.tolist(), strict=True))
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"{who}: class_weight must be a mapping of classes to weights or "
            f"'balanced', got {type(class_weight).__name__}"
        )
    weights = np.ones(y.shape)
    for label, value in class_weight.items():
        value = _check.real_in(who, f"class_weight[{label!r}]", value, "[0, inf)")
        weights[y == _check.integer(who, "a class of class_weight", label)] = value
    return weights
