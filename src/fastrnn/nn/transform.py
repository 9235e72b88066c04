# SPDX-License-Identifier: BSD-3-Clause
"""`Transform`: the base of layers that have no parameters and take one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


class Transform(Module):
    """Base of layers that are a function of one array.

    A subclass defines ``_transform(x)``, which gives the output and what the gradient
    needs, and ``_gradient(dy, kept)``, which gives the gradient of the input.

    Attributes
    ----------
    _axes : tuple of str or None
        Names of the axes that the input must have; None where any will do.
    _takes_integers : bool
        Whether an array of integers passes as such, so that an `Embedding` may follow.
    """

    _saved = False
    _axes = None
    _takes_integers = False

    def _transform(self, x):
        raise NotImplementedError

    def _gradient(self, dy, kept):
        raise NotImplementedError

    def _input(self, x):
        """`x` as an array that the layer can take."""
        who = type(self).__name__
        x = checks.as_array(who, "x", x)
        if not (self._takes_integers and x.dtype.kind in "iu"):
            x = checks.float_array(who, "x", x, checks.float_dtype(x))
        if self._axes is not None:
            checks.shape(who, "x", x, self._axes, (None,) * len(self._axes))
        return x

    def forward(self, x: ArrayLike) -> Array:
        """Compute the output.

        Parameters
        ----------
        x : array_like
            float64 stays so; everything else becomes float32.

        Returns
        -------
        ndarray

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers in a shape that the layer takes.
        """
        x = self._input(x)
        y, kept = self._transform(x)
        self._keep((kept, x.dtype, y.shape))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Gradient of the input.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output; None of integers.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray or None
            Shaped like the input; None of integers.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        context = self._context(context)
        kept, dtype, shape = context.saved
        if np.dtype(dtype).kind in "iu":
            context.release()
            return None
        who = f"{type(self).__name__}.backward"
        dy = checks.float_array(who, "dy", dy, dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        dx = self._gradient(dy, kept)
        context.release()
        return dx


class StepTransform(BatchFirst, Transform):
    """Base of a `Transform` of sequences: (T, B, features), as recurrent layers take.

    Attributes
    ----------
    batch_first : bool
        Whether sequences are (B, T, features) at the moment.
    """

    _saved = False

    @property
    def _axes(self):
        return ("B", "T", "features") if self.batch_first else ("T", "B", "features")

    @property
    def _steps_axis(self):
        return 1 if self.batch_first else 0
