# SPDX-License-Identifier: BSD-3-Clause
"""`Activation`: what a Keras layer applies to its output, as a layer of its own."""

import numpy as np

from fastrnn import _check
from fastrnn._functions import elu, relu, sigmoid, softmax, softplus, softsign
from fastrnn.module import Module

# Function, and gradient of the input from that of the output and the output.
FUNCTIONS = {
    "elu": (elu, lambda dy, y: dy * np.where(y > 0, 1, y + 1)),
    "relu": (relu, lambda dy, y: dy * (y > 0)),
    "sigmoid": (sigmoid, lambda dy, y: dy * y * (1 - y)),
    "softmax": (
        softmax,
        lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True)),
    ),
    "softplus": (softplus, lambda dy, y: dy * -np.expm1(-y)),
    "softsign": (softsign, lambda dy, y: dy * (1 - np.abs(y)) ** 2),
    "tanh": (np.tanh, lambda dy, y: dy * (1 - y * y)),
}


class Activation(Module):
    """A function of every element, or of the last axis for softmax.

    Parameters
    ----------
    function : {"elu", "relu", "sigmoid", "softmax", "softplus", "softsign", "tanh"}

    Raises
    ------
    ValueError
        If `function` is another.

    Examples
    --------
    >>> layer = Activation("softmax")
    >>> layer(np.zeros((2, 4)))[0]
    array([0.25, 0.25, 0.25, 0.25])
    """

    def __init__(self, function):
        self.function = _check.choice(
            type(self).__name__, "function", function, tuple(FUNCTIONS)
        )

    def forward(self, x):
        """Apply the function.

        Parameters
        ----------
        x : array_like, any shape
            float64 stays so; everything else becomes float32.

        Returns
        -------
        ndarray, shape of `x`

        Raises
        ------
        TypeError
            If `x` is not real numbers.
        """
        x = _check.float_array(type(self).__name__, "x", x, _check.float_dtype(x))
        y = FUNCTIONS[self.function][0](x)
        self._keep(y)
        return y

    def backward(self, dy, *, context=None):
        """Gradient of the input.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape of `dy`

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        y = context.saved
        dy = _check.float_array(who, "dy", dy, y.dtype)
        _check.same_shape(who, "dy", dy, "y", y.shape)
        dx = FUNCTIONS[self.function][1](dy, y)
        context.release()
        return dx

    def extra_repr(self):
        """The arguments that `repr` shows."""
        return repr(self.function)
