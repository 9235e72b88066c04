# SPDX-License-Identifier: BSD-3-Clause
"""Metrics; `fastrnn.metrics` is their public name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.pairs import IGNORED
from fastrnn.losses import crossentropy, objectives
from fastrnn.losses.base import Loss
from fastrnn.nn import masking
from fastrnn.util import checks
from fastrnn.util.typing import Array
from fastrnn.util.words import Answering


class Metric(Answering):
    """Base: a mean of what `values` gives for every row.

    Parameters
    ----------
    loss : Loss
        Of the model; it says what targets are.
    name : str, optional
        What its figure is called.

    Attributes
    ----------
    name : str
    higher_is_better : bool
        Which way a callback that watches it looks.
    summed : tuple of str
        The attributes, numbers or arrays, that `update` adds to: a distributed run adds
        up those of all processes. A class with a `reset` of its own says which.
    """

    name = ""
    higher_is_better = False
    summed: ClassVar[tuple[str, ...]] = ("total", "count")

    def __init__(self, loss: Loss | None = None, name: str | None = None) -> None:
        self.loss = loss
        if name is not None:
            self.name = name
        self.reset()

    def options(self) -> dict[str, Any]:
        """Arguments of the constructor that are not the defaults, but for the name."""
        return {}

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


class RootMeanSquaredError(MeanSquaredError):
    """Root of the mean squared error."""

    name = "root_mean_squared_error"

    def result(self) -> float:
        return math.sqrt(super().result())


class MeanAbsoluteError(_OfLoss):
    """Mean absolute error."""

    name = "mae"
    _loss = objectives.MeanAbsoluteError


class MeanAbsolutePercentageError(_OfLoss):
    """Mean absolute error in percent of the target."""

    name = "mape"
    _loss = objectives.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(_OfLoss):
    """Mean squared difference of the logarithms of one more."""

    name = "msle"
    _loss = objectives.MeanSquaredLogarithmicError


def _class_indices(loss, pred, target):
    """Outputs and class indices of the rows that count, whatever the targets are."""
    if isinstance(loss, objectives.CategoricalCrossentropy):
        pred, target = loss.prepare(pred, target)
        return pred.reshape(-1, pred.shape[-1]), target.argmax(axis=-1).ravel()
    sparse = objectives.SparseCategoricalCrossentropy()
    return sparse.counted(*sparse.prepare(pred, target))[:2]


# Losses of numbers, whose targets have the shape of the output.
_NUMBERS = (
    objectives.MeanSquaredError,
    objectives.MeanAbsoluteError,
    objectives.Huber,
    objectives.MeanAbsolutePercentageError,
    objectives.MeanSquaredLogarithmicError,
    objectives.LogCosh,
)


class Accuracy(Metric):
    """Share of rows whose largest output is that of the right class.

    With binary cross-entropy the share of outputs on the right side of 0.5, a
    probability, or of zero, a logit; with a CRF that of the steps with the right tag.
    With a loss of numbers, as in Keras: where there is one output, the share of those
    that are 1 or 0 as they are above 0.5 or not, else that of the right largest one.
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
        if isinstance(self.loss, _NUMBERS):
            pred, target = self.loss.prepare(pred, target)
            if pred.shape[-1] == 1:
                return ((pred > 0.5) == target) & ~np.isnan(pred)
            target = target.argmax(axis=-1)
        else:
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

    def __init__(
        self, k: int = 5, loss: Loss | None = None, name: str | None = None
    ) -> None:
        self.k = checks.positive_int("TopK", "k", k)
        self.name = f"top_{self.k}_accuracy"
        super().__init__(loss, name)

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


def edit_distance(
    a: Sequence[int] | Array | str, b: Sequence[int] | Array | str
) -> int:
    """Fewest insertions, deletions and substitutions that turn `a` into `b`.

    Sequences of labels, or strings, whose labels are their characters.

    Examples
    --------
    >>> edit_distance([1, 2, 3], [1, 3, 3, 4])
    2
    >>> edit_distance("six fou", "six four")
    1
    """
    b = np.asarray(list(b) if isinstance(b, str) else b)
    steps = np.arange(len(b) + 1)
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
