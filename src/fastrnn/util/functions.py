# SPDX-License-Identifier: BSD-3-Clause
"""Functions of whole arrays that layers from other libraries apply, in NumPy.

They keep the dtype of a floating array and do not overflow.
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
