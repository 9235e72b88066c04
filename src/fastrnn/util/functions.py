# SPDX-License-Identifier: BSD-3-Clause
"""Functions of whole arrays, in NumPy: what layers apply, and sums of logarithms.

They keep the dtype of a floating array, where they do not say otherwise, and do not
overflow.
"""

import numpy as np


def sigmoid(x):
    """``1 / (1 + exp(-x))`` of every element."""
    e = np.exp(-np.abs(x))  # of a negative number only: at most 1
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def relu(x):
    """The larger of 0 and every element."""
    return np.maximum(x, 0)


def elu(x, alpha=1):
    """Every element, where it is negative ``alpha * (exp(x) - 1)``."""
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def softplus(x):
    """``log(1 + exp(x))`` of every element."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softsign(x):
    """``x / (1 + |x|)`` of every element."""
    return x / (1 + np.abs(x))


def softmax(x, axis=-1):
    """Exponentials of `x` over their sum along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    """Logarithm of `softmax`."""
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def logsumexp(a, axis):
    """log(sum(exp(a))) along an axis, the largest subtracted first.

    Nothing overflows, -inf stands for a term that is zero, and a sum of such terms is
    -inf without a warning; NaN comes out as NaN.
    """
    top = a.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", over="ignore"):
        total = np.log(np.exp(a - top).sum(axis=axis))
    return total + top.squeeze(axis)


def log_normalised(scores):
    """Log-probabilities in float64 from scores, (..., classes).

    This is `log_softmax` rounded elsewhere: the logarithm of the sum comes first, and
    the scores less that logarithm last. The two are not one function because searches
    and CTC losses have the bits of this one, and cross-entropies those of the other.
    """
    z = scores.astype(np.float64)
    z -= logsumexp(z, -1)[..., None]
    return z


def largest(scores, n):
    """Indices of the n largest of each row of (B, M), the largest first: (B, n)."""
    part = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    if n < scores.shape[1]:
        part = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    ranked = np.argsort(-np.take_along_axis(scores, part, 1), axis=1, kind="stable")
    return np.take_along_axis(part, ranked, 1)
