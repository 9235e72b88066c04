# SPDX-License-Identifier: BSD-3-Clause
"""Cross-entropies as losses, of logits or of probabilities.

From logits everything is exact.  Probabilities that are all there is are brought into
``[EPSILON, 1 - EPSILON]`` first, as Keras does, so that no logarithm is infinite; what
is outside gets no gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.pairs import IGNORED
from fastrnn.losses import functions
from fastrnn.losses.base import Loss, check_fits
from fastrnn.util import checks
from fastrnn.util.functions import log_softmax
from fastrnn.util.typing import Array

EPSILON = 1e-7


def _clipped(p):
    """Probabilities away from 0 and 1, and where they were already."""
    low, high = p.dtype.type(EPSILON), p.dtype.type(1 - EPSILON)
    return np.clip(p, low, high), (p >= low) & (p <= high)


def log_probabilities(pred, logits):
    """Logarithm of each class's probability, and what its gradient needs.

    Parameters
    ----------
    pred : ndarray, shape (..., classes)
    logits : bool
        Whether `pred` is logits; else probabilities, made to sum to one.
    """
    if logits:
        return log_softmax(pred), None
    total = np.sum(pred, axis=-1, keepdims=True)
    total = np.where(total == 0, 1, total)  # dropout may leave nothing
    p, inside = _clipped(pred / total)
    return np.log(p), (p, inside, total)


def _gradient(log_p, kept, target):
    """Gradient of ``-sum(target * log_p)`` with respect to what `log_p` was made of."""
    if kept is None:
        share = np.sum(target, axis=-1, keepdims=True)
        return np.exp(log_p) * share - target
    p, inside, total = kept
    d = np.where(inside, target, 0)
    return (np.sum(d, axis=-1, keepdims=True) - d / p) / total


class _Crossentropy(Loss):
    """Base: what is known of logits and probabilities.

    Parameters
    ----------
    from_logits : bool, optional
        What the model's output is taken for. Default: probabilities where the model
        ends in a sigmoid or softmax, else logits.
    """

    classes = True

    def __init__(self, from_logits: bool | None = None) -> None:
        self.from_logits = from_logits

    def __call__(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[float, Array]:
        return self._of(pred, not self.probabilities, target, weight, mask)

    def of_batch(
        self, pred: Array, target: ArrayLike, weight: Array | None, mask: Array | None
    ) -> tuple[float, Array]:
        scores, logits = self.scores(pred)
        result = self._of(scores, logits, target, weight, mask)
        applied = self._applied(pred)
        if applied is not None:
            applied.of_input = True
        return result

    def _of(self, pred, logits, target, weight, mask):
        def mean(pred, target, weight):
            return self.mean(pred, target, weight, logits)

        return self._masked(mean, pred, target, weight, mask)

    def mean(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        logits: bool = True,
    ) -> tuple[float, Array]:
        pred, target = self.prepare(pred, target)
        return self._weighted(*self.rows(pred, target, logits), weight)

    def rows(
        self, pred: Array, target: ArrayLike, logits: bool = True
    ) -> tuple[Array, Array]:
        """Loss of each row and its gradient, `pred` being logits or probabilities."""
        raise NotImplementedError


class BinaryCrossentropy(_Crossentropy):
    """Cross-entropy of each output's own yes or no, in nats.

    Parameters
    ----------
    from_logits : bool, optional
        What the model's output is taken for. Default: probabilities where the model
        ends in a sigmoid or softmax, else logits.

    Examples
    --------
    >>> loss, d = BinaryCrossentropy(from_logits=False)(np.array([[0.75]]), [[1.0]])
    >>> round(loss, 4), round(float(-np.log(0.75)), 4), d.round(4).tolist()
    (0.2877, 0.2877, [[-1.3333]])
    """

    name = "binary_crossentropy"
    activation = "sigmoid"

    def prepare(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        pred, target = super().prepare(pred, target)
        self.check_range(target)
        return pred, target

    def check_range(self, target: ArrayLike) -> None:
        """Refuse targets that are no probabilities."""
        if target.size and not (target.min() >= 0 and target.max() <= 1):
            wrong = target[~((target >= 0) & (target <= 1))][0]
            raise ValueError(f"{self.name}: y must be in [0, 1], got {wrong}")

    def rows(
        self, pred: Array, target: ArrayLike, logits: bool = True
    ) -> tuple[Array, Array]:
        share = 1 / pred.shape[-1]
        if not logits:
            p, inside = _clipped(pred)
            values = -(target * np.log(p) + (1 - target) * np.log1p(-p))
            d = np.where(inside, (p - target) / (p * (1 - p)), 0)
            return np.mean(values, axis=-1), d * share
        small = np.exp(-abs(pred))  # in (0, 1]: nothing overflows
        values = np.maximum(pred, 0) - pred * target + np.log1p(small)
        sigmoid = np.where(pred >= 0, 1, small) / (1 + small)
        return np.mean(values, axis=-1), (sigmoid - target) * share


class CategoricalCrossentropy(_Crossentropy):
    """Cross-entropy with a distribution over classes (one-hot, say), in nats.

    Parameters
    ----------
    from_logits : bool, optional
        What the model's output is taken for. Default: probabilities where the model
        ends in a sigmoid or softmax, else logits.
    """

    name = "categorical_crossentropy"
    activation = "softmax"

    def rows(
        self, pred: Array, target: ArrayLike, logits: bool = True
    ) -> tuple[Array, Array]:
        log_p, kept = log_probabilities(pred, logits)
        return -np.sum(target * log_p, axis=-1), _gradient(log_p, kept, target)


class SparseCategoricalCrossentropy(_Crossentropy):
    """Cross-entropy with class indices, in nats.

    A target of -100 counts for nothing: its row is not among those divided by.

    Parameters
    ----------
    from_logits : bool, optional
        What the model's output is taken for. Default: probabilities where the model
        ends in a sigmoid or softmax, else logits.
    """

    name = "sparse_categorical_crossentropy"
    activation = "softmax"
    ignore_index = IGNORED

    def count(self, pred: Array, target: ArrayLike) -> int:
        return int(np.count_nonzero(np.asarray(target) != self.ignore_index))

    def divisor(self, pred: Array, target: ArrayLike, mask: Array | None) -> int:
        return self.count(pred, target if mask is None else np.asarray(target)[mask])

    def prepare(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        target = checks.integer_array(self.name, "y", target)
        if target.ndim == pred.ndim and target.shape[-1] == 1:
            target = target[..., 0]
        whose = "the model's output without its last axis"
        check_fits(self.name, target, whose, pred.shape[:-1], pred)
        return pred, target

    def counted(self, pred: Array, target: ArrayLike) -> tuple[Array, Array, Array]:
        """Outputs and class indices of the rows that count."""
        keep = target != self.ignore_index
        target = checks.index_array(self.name, "y", target[keep], pred.shape[-1])
        return pred[keep], target, keep

    def rows(
        self, pred: Array, target: ArrayLike, logits: bool = True
    ) -> tuple[Array, Array]:
        """As of `Loss`, with zeros in rows that do not count."""
        kept, classes, keep = self.counted(pred, target)
        log_p, how = log_probabilities(kept, logits)
        at = np.arange(classes.size), classes
        row_losses = np.zeros(target.shape, pred.dtype)
        row_losses[keep] = -log_p[at]
        d = np.zeros_like(pred)
        if how is None:
            d_kept = np.exp(log_p)
            d_kept[at] -= 1
        else:
            right = np.zeros_like(kept)
            right[at] = 1
            d_kept = _gradient(log_p, how, right)
        d[keep] = d_kept
        return row_losses, d

    def mean(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        logits: bool = True,
    ) -> tuple[float, Array]:
        pred, target = self.prepare(pred, target)
        if weight is None and logits:
            return functions.cross_entropy(pred, target, self.ignore_index)
        loss, d = super().mean(pred, target, weight, logits)
        share = np.count_nonzero(target != self.ignore_index) / max(1, target.size)
        return (loss / share, d / d.dtype.type(share)) if share else (float("nan"), d)
