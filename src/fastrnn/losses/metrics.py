# SPDX-License-Identifier: BSD-3-Clause
"""Metrics; `fastrnn.metrics` is their public name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.pairs import IGNORED
from fastrnn.losses import crossentropy, objectives
from fastrnn.losses.base import Loss
from fastrnn.nn import masking
from fastrnn.util import checks
from fastrnn.util.typing import Array


class Metric:
    """Base: a mean of what `values` gives for every row.

    Parameters
    ----------
    loss : Loss
        Of the model; it says what targets are.

    Attributes
    ----------
    name : str
    higher_is_better : bool
        Which way a callback that watches it looks.
    """

    name = ""
    higher_is_better = False

    def __init__(self, loss: Loss | None = None) -> None:
        self.loss = loss
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.total, self.count = 0.0, 0

    def update(self, pred: Array, target: ArrayLike, mask: Array | None = None) -> None:
        """Take in a batch, of which `mask` (N, T) says what counts; None for all."""
        if mask is not None:
            mask = masking.check(self.name, mask, np.shape(pred)[:-1])
            pred, target = pred[mask], np.asarray(target)[mask]
            if not pred.size:
                return
        self._add(self.values(pred, target))

    def _add(self, values):
        self.total += float(np.sum(values, dtype=np.float64))
        self.count += np.size(values)

    def result(self) -> float:
        """The mean so far; NaN before the first row."""
        return self.total / self.count if self.count else math.nan

    def values(self, pred: Array, target: ArrayLike) -> Array:
        """One number a row."""
        raise NotImplementedError


class _OfLoss(Metric):
    """A loss as a metric."""

    _loss = objectives.MeanSquaredError

    def values(self, pred: Array, target: ArrayLike) -> Array:
        loss = self._loss()
        return loss.rows(*loss.prepare(pred, target))[0]


class MeanSquaredError(_OfLoss):
    """Mean squared error."""

    name = "mse"


class MeanAbsoluteError(_OfLoss):
    """Mean absolute error."""

    name = "mae"
    _loss = objectives.MeanAbsoluteError


def _class_indices(loss, pred, target):
    """Outputs and class indices of the rows that count, whatever the targets are."""
    if isinstance(loss, objectives.CategoricalCrossentropy):
        pred, target = loss.prepare(pred, target)
        return pred.reshape(-1, pred.shape[-1]), target.argmax(axis=-1).ravel()
    sparse = objectives.SparseCategoricalCrossentropy()
    return sparse.counted(*sparse.prepare(pred, target))[:2]


class Accuracy(Metric):
    """Share of rows whose largest output is that of the right class.

    With binary cross-entropy the share of outputs on the right side of 0.5, a
    probability, or of zero, a logit; with a CRF that of the steps with the right tag.
    """

    name = "accuracy"
    higher_is_better = True

    def update(self, pred: Array, target: ArrayLike, mask: Array | None = None) -> None:
        if not isinstance(self.loss, objectives.ConditionalRandomField):
            super().update(pred, target, mask)
            return
        inside = target != IGNORED
        if mask is not None:
            inside &= masking.check(self.name, mask, target.shape)
        self._add(self.loss.decode(pred, inside)[inside] == target[inside])

    def values(self, pred: Array, target: ArrayLike) -> Array:
        if isinstance(self.loss, objectives.BinaryCrossentropy):
            pred, target = self.loss.prepare(pred, target)
            border = 0.5 if self.loss.probabilities else 0
            right = (pred > border) == (target > 0.5)
            return right & ~np.isnan(pred)  # no answer is no right one
        pred, target = _class_indices(self.loss, pred, target)
        return (pred.argmax(axis=-1) == target) & ~np.isnan(pred).any(axis=-1)


class TopK(Metric):
    """Share of rows whose right class is among the `k` largest outputs.

    Parameters
    ----------
    k : int
    loss : Loss, optional
        Of the model.

    Examples
    --------
    >>> metric = TopK(2)
    >>> metric.update(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), [1, 2])
    >>> metric.result()
    0.5
    """

    higher_is_better = True

    def __init__(self, k: int = 5, loss: Loss | None = None) -> None:
        self.k = checks.positive_int("TopK", "k", k)
        self.name = f"top_{self.k}_accuracy"
        super().__init__(loss)

    def values(self, pred: Array, target: ArrayLike) -> Array:
        pred, target = _class_indices(self.loss, pred, target)
        own = pred[np.arange(target.size), target]
        among = np.sum(pred > own[:, None], axis=-1) < self.k
        return among & ~np.isnan(pred).any(axis=-1)


class Perplexity(Metric):
    """Exponential of the mean cross-entropy."""

    name = "perplexity"

    def update(self, pred: Array, target: ArrayLike, mask: Array | None = None) -> None:
        if self.loss is not None:
            pred, logits = self.loss.scores(pred)
            if not logits:
                pred, _ = crossentropy.log_probabilities(pred, logits)
        super().update(pred, target, mask)

    def values(self, pred: Array, target: ArrayLike) -> Array:
        pred, target = _class_indices(self.loss, pred, target)
        return objectives.SparseCategoricalCrossentropy().rows(pred, target)[0]

    def result(self) -> float:
        mean = super().result()
        return math.exp(mean) if mean < 700 else math.inf if mean >= 700 else math.nan


class LabelErrorRate(Metric):
    """Insertions, deletions and substitutions per right label, with the loss "ctc".

    Of the labels of the best alignment; the character error rate where labels are
    characters.
    """

    name = "label_error_rate"

    def update(self, pred: Array, target: ArrayLike, mask: Array | None = None) -> None:
        for found, row in zip(self.loss.decode(pred, mask), target, strict=True):
            right = row[row != IGNORED]
            self.total += edit_distance(found, right)
            self.count += len(right)


def edit_distance(a: Sequence[int] | Array, b: Sequence[int] | Array) -> int:
    """Fewest insertions, deletions and substitutions that turn `a` into `b`.

    Examples
    --------
    >>> edit_distance([1, 2, 3], [1, 3, 3, 4])
    2
    """
    b, steps = np.asarray(b), np.arange(len(b) + 1)
    row = steps
    for i, label in enumerate(a):
        new = np.minimum(row[1:] + 1, row[:-1] + (label != b))
        # An insertion costs one more than the place to its left.
        row = np.minimum.accumulate(np.concatenate(([i + 1], new)) - steps) + steps
    return int(row[-1])


class Custom(Metric):
    """A function ``(pred, target) -> number`` as a metric, a mean over samples.

    Parameters
    ----------
    function : callable
        It is given ``mask=`` where the model's output has a mask, and must take it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        super().__init__()

    def update(self, pred: Array, target: ArrayLike, mask: Array | None = None) -> None:
        found = masking.call(self.name, self.function, pred, target, mask)
        self.total += float(found) * len(pred)
        self.count += len(pred)


METRICS = {
    "accuracy": Accuracy,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "perplexity": Perplexity,
    "label_error_rate": LabelErrorRate,
}
# The metric that goes with each loss of whole sequences.
_OF_SEQUENCES = {
    objectives.ConditionalRandomField.name: Accuracy.name,
    objectives.ConnectionistTemporalClassification.name: LabelErrorRate.name,
}


def by_name(who: str, metric: str | Metric | Callable[..., Any], loss: Loss) -> Metric:
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
        _check_loss(who, metric.name, loss)
        metric.loss = loss
        return metric
    if callable(metric) and not isinstance(metric, type):
        return Custom(metric)
    if not isinstance(metric, str):
        raise TypeError(
            f"{who}: a metric must be a name, an object of fastrnn.metrics or a "
            f"function, got {metric!r}"
        )
    k = metric.removeprefix("top_").removesuffix("_accuracy")
    if k.isdigit() and metric == f"top_{k}_accuracy":
        _check_loss(who, metric, loss)
        return TopK(int(k), loss)
    options = (*METRICS, "top_5_accuracy")
    checks.choice(who, "metrics", metric, options)
    _check_loss(who, metric, loss)
    return METRICS[metric](loss)


def _check_loss(who, name, loss):
    """Refuse a metric that the loss's outputs and targets do not have."""
    of_sequences = _OF_SEQUENCES.get(loss.name)
    fits = name != LabelErrorRate.name if of_sequences is None else name == of_sequences
    if not fits:
        known = "those of steps" if of_sequences is None else repr(of_sequences)
        raise ValueError(
            f"{who}: metrics with the loss {loss.name!r} must be {known} or functions, "
            f"got {name!r}"
        )
