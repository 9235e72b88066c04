# SPDX-License-Identifier: BSD-3-Clause
"""Layers that make one step of several: global pooling, and pooling of windows.

By themselves they take (T, B, features), as recurrent layers do; in a model, or with
``batch_first``, (B, T, features).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import masking, windows
from fastrnn.nn.attributes import flag
from fastrnn.nn.transform import StepTransform
from fastrnn.util import checks
from fastrnn.util.typing import Array, Mask


class _Global(StepTransform):
    """Base of layers that make one vector of a sequence."""

    _changeable: ClassVar = {"batch_first": flag}

    def __init__(self, *, keepdims: bool = False, batch_first: bool = False) -> None:
        self.keepdims = checks.flag(type(self).__name__, "keepdims", keepdims)
        self.batch_first = batch_first

    def _input(self, x):
        x = super()._input(x)
        if x.shape[self._steps_axis] == 0:
            raise ValueError(
                f"{type(self).__name__}: x must have T >= 1, got shape {x.shape}"
            )
        return x

    def _as_output(self, y, axis):
        return y if self.keepdims else y.squeeze(axis)

    def _as_kept(self, dy, axis):
        return dy if self.keepdims else np.expand_dims(dy, axis)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return "keepdims=True" if self.keepdims else ""


class GlobalAveragePooling1D(_Global):
    """The mean over all steps of a sequence, or over those that a mask lets count.

    Parameters
    ----------
    keepdims : bool
        Whether the output has an axis of one step in place of the sequence's.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    The mask ends here. A sequence none of whose steps counts has the mean zero, where
    Keras gives NaN.

    Examples
    --------
    >>> layer = GlobalAveragePooling1D(batch_first=True)
    >>> x = np.array([[[1.0], [2.0], [9.0]]])
    >>> layer(x)
    array([[4.]])
    >>> layer(x, mask=[[True, True, False]])
    array([[1.5]])
    """

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
        """None: the output has no steps."""
        return

    def forward(self, x: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
        """Compute the mean.

        Parameters
        ----------
        x : array_like, shape (T, B, features) or (B, T, features)
            float64 stays so; everything else becomes float32.
        mask : array_like of bool, optional
            Which steps count, laid out like the first two axes of `x`.

        Returns
        -------
        ndarray, shape (B, features)
            With an axis of one step between or before these, with `keepdims`.

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers in such a shape, or has no steps, or `mask` does
            not fit.
        """
        x, axis = self._input(x), self._steps_axis
        if mask is None:
            share = np.full((1, 1, 1), 1 / x.shape[axis], x.dtype)
            y = x.sum(axis=axis, keepdims=True)
            y *= share
        else:
            mask = masking.check(type(self).__name__, mask, x.shape)
            checks.shape(type(self).__name__, "mask", mask, self._axes[:2], (None,) * 2)
            counts = mask[..., None]
            n = np.maximum(counts.sum(axis=axis, keepdims=True), 1)
            share = (counts / n).astype(x.dtype)
            y = np.where(counts, x, x.dtype.type(0)).sum(axis=axis, keepdims=True)
            y /= n.astype(x.dtype)
        y = self._as_output(y, axis)
        self._keep(((share, x.shape, axis), x.dtype, y.shape))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def _gradient(self, dy, kept):
        share, shape, axis = kept
        return np.broadcast_to(self._as_kept(dy, axis) * share, shape).copy()


class GlobalMaxPooling1D(_Global):
    """The largest number over all steps of a sequence, feature by feature.

    Parameters
    ----------
    keepdims : bool
        Whether the output has an axis of one step in place of the sequence's.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    As in Keras, a mask ends here with a warning, and steps that it leaves out count.

    Examples
    --------
    >>> GlobalMaxPooling1D()(np.array([[[1.0, 5.0]], [[2.0, 3.0]]]))
    array([[2., 5.]])
    """

    def _transform(self, x):
        axis = self._steps_axis
        best = x.argmax(axis=axis)
        best = np.expand_dims(best, axis)
        y = np.take_along_axis(x, best, axis)
        return self._as_output(y, axis), (best, x.shape, axis)

    def _gradient(self, dy, kept):
        best, shape, axis = kept
        dx = np.zeros(shape, dy.dtype)
        np.put_along_axis(dx, best, self._as_kept(dy, axis), axis)
        return dx


class _Pooling(StepTransform):
    """Base of layers that pool windows of steps."""

    _changeable: ClassVar = {"batch_first": flag}

    def __init__(
        self,
        pool_size: int = 2,
        strides: int | None = None,
        padding: str = "valid",
        *,
        batch_first: bool = False,
    ) -> None:
        who = type(self).__name__
        self.pool_size = checks.positive_int(who, "pool_size", pool_size)
        self.strides = (
            None if strides is None else checks.positive_int(who, "strides", strides)
        )
        self.padding = checks.choice(who, "padding", padding, ("valid", "same"))
        self.batch_first = batch_first

    def _windows(self, x):
        return windows.Windows(
            type(self).__name__,
            x.shape[self._steps_axis],
            self.pool_size,
            self.strides or self.pool_size,
            self.padding,
        )

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        shown = [str(self.pool_size)]
        shown += [] if self.strides is None else [f"strides={self.strides}"]
        shown += [] if self.padding == "valid" else [f"padding={self.padding!r}"]
        return ", ".join(shown)


class MaxPooling1D(_Pooling):
    """The largest number in each window of steps, feature by feature.

    Parameters
    ----------
    pool_size : int
        Steps in a window.
    strides : int, optional
        Steps from one window to the next. Default: pool_size.
    padding : {"valid", "same"}
        With "valid" windows are within the sequence. With "same" there are
        ``ceil(T / strides)``, of which the outer ones may reach beyond it; what they
        find there does not count.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    As in Keras, a mask ends here with a warning.

    Examples
    --------
    >>> x = np.array([1.0, 3.0, 2.0, 5.0, 4.0])[:, None, None]
    >>> MaxPooling1D(2)(x).ravel()
    array([3., 5.])
    >>> MaxPooling1D(2, padding="same")(x).ravel()
    array([3., 5., 4.])
    """

    def _transform(self, x):
        made, axis = self._windows(x), self._steps_axis
        seen = made.of(x, axis, -np.inf)
        best = seen.argmax(axis=-1)
        y = np.take_along_axis(seen, best[..., None], -1)[..., 0]
        return y, (made, best, axis)

    def _gradient(self, dy, kept):
        made, best, axis = kept
        return made.back(
            axis, (np.where(best == k, dy, 0) for k in range(self.pool_size))
        )


class AveragePooling1D(_Pooling):
    """The mean of each window of steps, feature by feature.

    Parameters
    ----------
    pool_size : int
        Steps in a window.
    strides : int, optional
        Steps from one window to the next. Default: pool_size.
    padding : {"valid", "same"}
        With "valid" windows are within the sequence. With "same" there are
        ``ceil(T / strides)``, of which the outer ones may reach beyond it; the mean is
        over the steps that they have in common with the sequence.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    As in Keras, a mask ends here with a warning.

    Examples
    --------
    >>> x = np.array([1.0, 3.0, 2.0, 5.0, 4.0])[:, None, None]
    >>> AveragePooling1D(2, strides=1)(x).ravel()
    array([2. , 2.5, 3.5, 4.5])
    """

    def _transform(self, x):
        made, axis = self._windows(x), self._steps_axis
        ones = made.of(np.ones((made.T, 1, 1), x.dtype), 0, 0).sum(axis=-1)
        share = 1 / (ones if axis == 0 else ones.swapaxes(0, 1))
        y = made.of(x, axis, 0).sum(axis=-1)
        y *= share
        return y, (made, share, axis)

    def _gradient(self, dy, kept):
        made, share, axis = kept
        return made.back(axis, [dy * share] * self.pool_size)
