# SPDX-License-Identifier: BSD-3-Clause
"""Layers that make one array of several: `Concatenate`, `Add` and others."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array, Mask


class Merging(Module):
    """Base of layers whose ``forward`` takes several arrays.

    A subclass defines ``_merge(parts)``, which gives the output and what the gradient
    needs, and ``_split(dy, kept)``, which gives the gradients of the parts.
    """

    _saved = False

    def _merge(self, parts):
        raise NotImplementedError

    def _split(self, dy, kept):
        raise NotImplementedError

    def forward(self, *arrays: ArrayLike) -> Array:
        """Make one array of several.

        Parameters
        ----------
        *arrays : array_like
            At least one. float64 if one of them is, else float32.

        Returns
        -------
        ndarray

        Raises
        ------
        ValueError, TypeError
            If there is none, shapes do not go together, or one is not real numbers.
        """
        who = type(self).__name__
        if not arrays:
            raise ValueError(f"{who}: arrays must be at least one, got none")
        dtype = max(map(checks.float_dtype, arrays))  # "float64" sorts last
        parts = [
            checks.float_array(who, f"array {i}", array, dtype)
            for i, array in enumerate(arrays)
        ]
        y, kept = self._merge(parts)
        self._keep((kept, dtype, y.shape))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def backward(
        self, dy: ArrayLike, *, context: Context | None = None
    ) -> tuple[Array, ...]:
        """Gradients of the arrays.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        tuple of ndarray
            One for each array, shaped like it.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        kept, dtype, shape = context.saved
        dy = checks.float_array(who, "dy", dy, dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        parts = tuple(self._split(dy, kept))
        context.release()
        return parts

    def merge_masks(self, arrays: Sequence[Any], masks: Sequence[Mask]) -> Mask:
        """The mask of the output.

        Parameters
        ----------
        arrays : sequence of ndarray
            What `forward` is given.
        masks : sequence of (ndarray of bool or None)
            The mask of each.

        Returns
        -------
        ndarray of bool, or None
            As in Keras: a step counts if it does in one of the arrays. None if an array
            has no mask, all steps of which count then.
        """
        self._check_masks(masks)
        if any(mask is None for mask in masks):
            return None
        return functools.reduce(np.logical_or, masks)

    def _check_masks(self, masks):
        for mask in masks:
            if mask is not None and getattr(mask, "dtype", None) != np.dtype(bool):
                raise TypeError(
                    f"{type(self).__name__}: masks must be ndarrays of bool or None, "
                    f"got {type(mask).__name__}"
                )


class Concatenate(Merging):
    """Features side by side: arrays joined along an axis, mostly the last.

    Parameters
    ----------
    axis : int
        The axis along which they are joined.

    Raises
    ------
    TypeError
        If `axis` is not an integer.

    Examples
    --------
    >>> layer = Concatenate()
    >>> layer(np.zeros((5, 3, 2)), np.ones((5, 3, 4))).shape
    (5, 3, 6)
    >>> [part.shape for part in layer.backward(np.ones((5, 3, 6)))]
    [(5, 3, 2), (5, 3, 4)]
    """

    _later_arguments = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        self.axis = checks.integer(type(self).__name__, "axis", axis)

    def _place(self, ndim):
        """The number of the axis, from the first one on."""
        return self.axis % ndim

    def _merge(self, parts):
        who, ndim = type(self).__name__, parts[0].ndim
        for i, part in enumerate(parts):
            if not -part.ndim <= self.axis < part.ndim:
                rule = (
                    "have shape (..., features)"
                    if self.axis == -1
                    else f"have an axis {self.axis}"
                )
                raise ValueError(f"{who}: array {i} must {rule}, got {part.shape}")
            sizes = list(parts[0].shape)
            sizes[self._place(ndim)] = None
            letters = ["features" if s is None else str(s) for s in sizes]
            checks.shape(who, f"array {i}", part, tuple(letters), tuple(sizes))
        place = self._place(ndim)
        y = np.concatenate(parts, axis=place)
        return y, (place, np.cumsum([part.shape[place] for part in parts[:-1]]))

    def _split(self, dy, kept):
        place, ends = kept
        return (np.array(p, order="C") for p in np.split(dy, ends, axis=place))

    def merge_masks(self, arrays: Sequence[Any], masks: Sequence[Mask]) -> Mask:
        """The mask of the output, as in Keras.

        Parameters
        ----------
        arrays : sequence of ndarray
            What `forward` is given.
        masks : sequence of (ndarray of bool or None)
            The mask of each; None where all steps count.

        Returns
        -------
        ndarray of bool, or None
            Joined along the axis of steps; along one that comes after it, a step counts
            if it does in one of the arrays.
        """
        self._check_masks(masks)
        if all(mask is None for mask in masks):
            return None
        ndim = max(mask.ndim for mask in masks if mask is not None)
        whole = [
            np.ones(np.shape(array)[:ndim], bool) if mask is None else mask
            for array, mask in zip(arrays, masks, strict=True)
        ]
        place = self._place(np.ndim(arrays[0]))
        if place < ndim:
            return np.concatenate(whole, axis=place)
        return functools.reduce(np.logical_or, whole)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return "" if self.axis == -1 else f"axis={self.axis}"


class _Elementwise(Merging):
    """Base of layers that work on elements in one place of all arrays.

    An axis of size 1 goes with any size, and an array with fewer axes than another has
    some of size 1 after the first one, which is that of samples.
    """

    def _merge(self, parts):
        shapes = [part.shape for part in parts]
        ndim = max(map(len, shapes))
        alike = [
            part.reshape(part.shape[:1] + (1,) * (ndim - part.ndim) + part.shape[1:])
            for part in parts
        ]
        try:
            np.broadcast_shapes(*(part.shape for part in alike))
        except ValueError:
            raise ValueError(
                f"{type(self).__name__}: arrays must have one shape but for axes of "
                f"size 1, got {', '.join(map(str, shapes))}"
            ) from None
        y = self._combine(alike)
        return y, (alike, y, shapes)

    def _split(self, dy, kept):
        alike, y, shapes = kept
        for grad, part, shape in zip(
            self._gradients(dy, alike, y), alike, shapes, strict=True
        ):
            summed = tuple(
                k for k, size in enumerate(part.shape) if size != dy.shape[k]
            )
            grad = grad.sum(axis=summed) if summed else np.array(grad, order="C")
            yield grad.reshape(shape)

    def _combine(self, parts):
        raise NotImplementedError

    def _gradients(self, dy, parts, y):
        raise NotImplementedError


class Add(_Elementwise):
    """The sum of arrays.

    Examples
    --------
    >>> Add()([1.0, 2.0], [3.0, 4.0])
    array([4., 6.], dtype=float32)
    """

    def _combine(self, parts):
        return functools.reduce(operator.add, parts) if parts[1:] else parts[0].copy()

    def _gradients(self, dy, parts, y):
        return [dy] * len(parts)


class Average(Add):
    """The mean of arrays.

    Examples
    --------
    >>> Average()([1.0, 2.0], [3.0, 4.0])
    array([2., 3.], dtype=float32)
    """

    def _combine(self, parts):
        y = super()._combine(parts)
        y /= len(parts)
        return y

    def _gradients(self, dy, parts, y):
        return [dy / len(parts)] * len(parts)


class Subtract(_Elementwise):
    """One array less another.

    Examples
    --------
    >>> Subtract()([1.0, 2.0], [3.0, 5.0])
    array([-2., -3.], dtype=float32)
    """

    def _combine(self, parts):
        if len(parts) != 2:
            raise ValueError(f"Subtract: arrays must be two, got {len(parts)}")
        return parts[0] - parts[1]

    def _gradients(self, dy, parts, y):
        return [dy, -dy]


class Multiply(_Elementwise):
    """The product of arrays, element by element.

    Examples
    --------
    >>> Multiply()([1.0, 2.0], [3.0, 4.0])
    array([3., 8.], dtype=float32)
    """

    def _combine(self, parts):
        return functools.reduce(operator.mul, parts) if parts[1:] else parts[0].copy()

    def _gradients(self, dy, parts, y):
        for i in range(len(parts)):
            # Not the product over the part, which may be zero.
            yield functools.reduce(operator.mul, parts[:i] + parts[i + 1 :], dy)


class _Extreme(_Elementwise):
    """Base of the largest and the smallest; of equals the first has the gradient."""

    _function = None

    def _combine(self, parts):
        return functools.reduce(self._function, parts) if parts[1:] else parts[0].copy()

    def _gradients(self, dy, parts, y):
        left = np.ones(y.shape, bool)
        for part in parts:
            here = left & (part == y)
            left &= ~here
            yield np.where(here, dy, 0)


class Maximum(_Extreme):
    """The largest of the elements in one place of arrays.

    Examples
    --------
    >>> Maximum()([1.0, 4.0], [3.0, 2.0])
    array([3., 4.], dtype=float32)
    """

    _function = staticmethod(np.maximum)


class Minimum(_Extreme):
    """The smallest of the elements in one place of arrays.

    Examples
    --------
    >>> Minimum()([1.0, 4.0], [3.0, 2.0])
    array([1., 2.], dtype=float32)
    """

    _function = staticmethod(np.minimum)
