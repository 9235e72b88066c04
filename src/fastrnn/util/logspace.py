# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that are given by their logarithms: sums, and the largest."""

import numpy as np


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


def log_softmax(logits):
    """Log-probabilities in float64 from scores: (..., classes)."""
    z = logits.astype(np.float64)
    z -= logsumexp(z, -1)[..., None]
    return z


def largest(scores, n):
    """Indices of the n largest of each row of (B, M), the largest first: (B, n)."""
    part = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    if n < scores.shape[1]:
        part = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    ranked = np.argsort(-np.take_along_axis(scores, part, 1), axis=1, kind="stable")
    return np.take_along_axis(part, ranked, 1)
