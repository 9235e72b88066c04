# SPDX-License-Identifier: BSD-3-Clause
"""Layers that arrange numbers anew: `Flatten`, `Reshape`, `Permute`, `RepeatVector`.

The first three are about the axes of one sample. The first axis is that of samples,
whoever calls them, as in PyTorch and Keras. Integers pass as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.transform import Transform
from fastrnn.util import budget, checks


class _OfSamples(Transform):
    """Base of layers that arrange each sample's numbers anew."""

    _takes_integers = True

    def _input(self, x):
        x = super()._input(x)
        if x.ndim == 0:
            raise ValueError(
                f"{type(self).__name__}: x must have shape (N, ...), got ()"
            )
        return x


class Flatten(_OfSamples):
    """All numbers of a sample in one row: (N, ...) becomes (N, numbers).

    Examples
    --------
    >>> Flatten()(np.zeros((5, 3, 2))).shape
    (5, 6)
    """

    def _transform(self, x):
        return x.reshape(len(x), math.prod(x.shape[1:])), x.shape

    def _gradient(self, dy, shape):
        return dy.reshape(shape)


class Reshape(_OfSamples):
    """The numbers of a sample, in their order, with other axes.

    Parameters
    ----------
    target_shape : tuple of int
        Sizes of a sample's axes. One of them may be -1: what is left.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> Reshape((2, -1))(np.zeros((5, 6))).shape
    (5, 2, 3)
    """

    def __init__(self, target_shape: Sequence[int]) -> None:
        who = type(self).__name__
        if not isinstance(target_shape, (tuple, list)):
            raise TypeError(
                f"{who}: target_shape must be a tuple of integers, got {target_shape!r}"
            )
        self.target_shape = tuple(
            -1
            if checks.integer(who, f"target_shape[{i}]", size) == -1
            else checks.positive_int(who, f"target_shape[{i}]", size)
            for i, size in enumerate(target_shape)
        )
        if self.target_shape.count(-1) > 1:
            raise ValueError(
                f"{who}: target_shape must have -1 at most once, "
                f"got {self.target_shape}"
            )

    def _transform(self, x):
        n, known = math.prod(x.shape[1:]), math.prod(self.target_shape)
        left_over = n % known if known < 0 else n - known
        if left_over:
            raise ValueError(
                f"{type(self).__name__}: x must have samples of as many numbers as "
                f"target_shape, {self.target_shape}, got shape {x.shape}"
            )
        sizes = [abs(n // known) if s == -1 else s for s in self.target_shape]
        return x.reshape(len(x), *sizes), x.shape

    def _gradient(self, dy, shape):
        return dy.reshape(shape)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return str(self.target_shape)


class Permute(_OfSamples):
    """The axes of a sample in another order.

    Parameters
    ----------
    dims : tuple of int
        The axes by their numbers, from 1 on, as in Keras: axis 0 is that of samples.

    Raises
    ------
    ValueError, TypeError
        If `dims` does not have each number from 1 on once.

    Examples
    --------
    >>> Permute((2, 1))(np.zeros((5, 3, 2))).shape
    (5, 2, 3)
    """

    def __init__(self, dims: Sequence[int]) -> None:
        who = type(self).__name__
        if not isinstance(dims, (tuple, list)):
            raise TypeError(f"{who}: dims must be a tuple of integers, got {dims!r}")
        self.dims = tuple(
            checks.positive_int(who, f"dims[{i}]", axis) for i, axis in enumerate(dims)
        )
        if sorted(self.dims) != list(range(1, len(dims) + 1)):
            raise ValueError(
                f"{who}: dims must have each number from 1 to {len(dims)} once, "
                f"got {self.dims}"
            )

    def _transform(self, x):
        if x.ndim != len(self.dims) + 1:
            raise ValueError(
                f"{type(self).__name__}: x must have {len(self.dims)} axes beside that "
                f"of samples, got shape {x.shape}"
            )
        order = 0, *self.dims
        return np.ascontiguousarray(x.transpose(order)), np.argsort(order)

    def _gradient(self, dy, back):
        return np.ascontiguousarray(dy.transpose(back))

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return str(self.dims)


class RepeatVector(BatchFirst, Transform):
    """A vector as a sequence of n steps that are all alike.

    Parameters
    ----------
    n : int
        Steps.
    batch_first : bool
        Whether the sequences are (B, n, features) instead of (n, B, features). In a
        model they are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> RepeatVector(4)(np.zeros((3, 2))).shape
    (4, 3, 2)
    """

    _axes = "B", "features"
    _takes_integers = True
    _changeable: ClassVar = {"batch_first": flag}

    def __init__(self, n: int, *, batch_first: bool = False) -> None:
        self.n = checks.positive_int(type(self).__name__, "n", n)
        self.batch_first = batch_first

    def _transform(self, x):
        budget.check_data(type(self).__name__, self.n * x.size)
        axis = 1 if self.batch_first else 0
        return np.repeat(np.expand_dims(x, axis), self.n, axis), axis

    def _gradient(self, dy, axis):
        return dy.sum(axis=axis)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return f"{self.n}"
