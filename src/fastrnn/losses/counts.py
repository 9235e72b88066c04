# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of yes and no: `Precision`, `Recall`, `AUC` and `BinaryAccuracy`.

Each counts, over all numbers of the outputs that an epoch has seen, how many of those
that should be 1 and of those that should be 0 are above a threshold. Logits of a binary
cross-entropy are made probabilities first.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastrnn.losses import objectives
from fastrnn.losses.base import Loss
from fastrnn.losses.metrics import Metric
from fastrnn.util import checks
from fastrnn.util.functions import sigmoid


class _Counts(Metric):
    """Base: how many positives and negatives are above each of some thresholds."""

    higher_is_better = True
    summed: ClassVar[tuple[str, ...]] = ("above", "in_all")
    thresholds: npt.NDArray[np.float64]

    def __init__(self, loss: Loss | None = None, name: str | None = None) -> None:
        super().__init__(loss)
        self.name = type(self).name if name is None else name

    def reset(self) -> None:
        n = len(self.thresholds)
        self.above = np.zeros((2, n), np.int64)  # of those that should be 0, and 1
        self.in_all = np.zeros(2, np.int64)

    def values(self, pred: Any, target: Any) -> tuple[Any, Any]:
        if isinstance(self.loss, objectives.SparseCategoricalCrossentropy):
            raise ValueError(
                f"{self.name}: y must be 0 or 1 for every number of the output, got "
                "class indices; fastrnn.one_hot(y) with the loss "
                "'categorical_crossentropy' is such"
            )
        loss = self.loss or objectives.MeanSquaredError()
        pred, target = loss.prepare(np.asarray(pred), target)
        if isinstance(loss, objectives.BinaryCrossentropy) and not loss.probabilities:
            pred = sigmoid(pred)
        return pred.ravel(), target.ravel() > 0.5

    def _add(self, values: tuple[Any, Any]) -> None:
        pred, right = values
        pred = np.where(np.isnan(pred), ~right, pred)  # no answer is no right one
        # How many thresholds are below each number: it is above so many of them.
        n = len(self.thresholds)
        order = np.argsort(self.thresholds)
        below = np.searchsorted(self.thresholds[order], pred, side="left")
        for label in (0, 1):
            mine = below[right == label]
            counts = np.bincount(mine, minlength=n + 1)
            self.above[label, order] += counts[::-1].cumsum()[::-1][1:]
            self.in_all[label] += len(mine)


class _AtThreshold(_Counts):
    """Base of those with one threshold."""

    def __init__(
        self,
        threshold: float = 0.5,
        loss: Loss | None = None,
        name: str | None = None,
    ) -> None:
        who = type(self).__name__
        self.threshold = checks.probability(who, "threshold", threshold)
        # Compared with float32 outputs as they are.
        self.thresholds = np.array([np.float32(self.threshold)], np.float64)
        super().__init__(loss, name)

    def options(self) -> dict[str, object]:
        return {} if self.threshold == 0.5 else {"threshold": self.threshold}


class Precision(_AtThreshold):
    """Share of what is taken for 1 that should be 1; 0 where nothing is.

    Parameters
    ----------
    threshold : float in [0, 1]
        What is above it is taken for 1.
    loss : Loss, optional
        Of the model.
    name : str, optional

    Examples
    --------
    >>> metric = Precision()
    >>> metric.update(np.array([[0.9], [0.8], [0.1]]), [1, 0, 1])
    >>> metric.result()
    0.5
    """

    name = "precision"

    def result(self) -> float:
        found = int(self.above.sum())
        return int(self.above[1, 0]) / found if found else 0.0


class Recall(_AtThreshold):
    """Share of what should be 1 that is taken for 1; 0 where nothing should.

    Parameters
    ----------
    threshold : float in [0, 1]
        What is above it is taken for 1.
    loss : Loss, optional
        Of the model.
    name : str, optional

    Examples
    --------
    >>> metric = Recall()
    >>> metric.update(np.array([[0.9], [0.8], [0.1], [0.7]]), [1, 0, 1, 1])
    >>> round(metric.result(), 3)
    0.667
    """

    name = "recall"

    def result(self) -> float:
        wanted = int(self.in_all[1])
        return int(self.above[1, 0]) / wanted if wanted else 0.0


class BinaryAccuracy(_AtThreshold):
    """Share of numbers on the right side of a threshold.

    Parameters
    ----------
    threshold : float in [0, 1]
    loss : Loss, optional
        Of the model.
    name : str, optional

    Examples
    --------
    >>> metric = BinaryAccuracy()
    >>> metric.update(np.array([[0.9], [0.8], [0.1], [0.2]]), [1, 0, 1, 0])
    >>> metric.result()
    0.5
    """

    name = "binary_accuracy"

    def result(self) -> float:
        n = int(self.in_all.sum())
        right = int(self.above[1, 0] + self.in_all[0] - self.above[0, 0])
        return right / n if n else math.nan


class AUC(_Counts):
    """Area under the curve of true positives over false ones (ROC).

    The curve is drawn through so many thresholds, as in Keras.

    Parameters
    ----------
    num_thresholds : int >= 2
    loss : Loss, optional
        Of the model.
    name : str, optional

    References
    ----------
    .. [1] T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters
       27(8), 2006.

    Examples
    --------
    >>> metric = AUC()
    >>> metric.update(np.array([[0.9], [0.7], [0.8], [0.1]]), [1, 1, 0, 0])
    >>> round(metric.result(), 6)
    0.75
    """

    name = "auc"

    def __init__(
        self,
        num_thresholds: int = 200,
        loss: Loss | None = None,
        name: str | None = None,
    ) -> None:
        n = checks.positive_int("AUC", "num_thresholds", num_thresholds)
        if n < 2:
            raise ValueError(f"AUC: num_thresholds must be at least 2, got {n}")
        self.num_thresholds = n
        # The outermost ones have all numbers from 0 to 1 between them.
        inner = [(i + 1) / (n - 1) for i in range(n - 2)]
        self.thresholds = np.float64(np.float32([-1e-7, *inner, 1 + 1e-7]))
        super().__init__(loss, name)

    def values(self, pred: Any, target: Any) -> tuple[Any, Any]:
        pred, right = super().values(pred, target)
        return np.clip(pred, 0, 1), right  # between the outermost thresholds

    def options(self) -> dict[str, object]:
        n = self.num_thresholds
        return {} if n == 200 else {"num_thresholds": n}

    def result(self) -> float:
        """The area; 0 before there are ones and zeros, as in Keras."""
        if not self.in_all.all():
            return 0.0
        false, true = self.above / self.in_all[:, None]
        return float(np.sum((false[:-1] - false[1:]) * (true[:-1] + true[1:]) / 2))


COUNTS = {cls.name: cls for cls in (Precision, Recall, BinaryAccuracy, AUC)}
