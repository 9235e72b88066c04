# SPDX-License-Identifier: BSD-3-Clause
"""Functions as layers: `Activation`, `ReLU`, `Sigmoid`, `Softmax` and `Tanh`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.attributes import by
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.functions import elu, relu, sigmoid, softmax, softplus, softsign
from fastrnn.util.typing import Array

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


def by_name(who, name, function):
    """The name in `FUNCTIONS` of a function that is given by name or as itself.

    Raises
    ------
    ValueError
        If the function is not in the table.
    """
    if callable(function):
        for known, (forward, _) in FUNCTIONS.items():
            if function is forward:
                return known
    return checks.choice(who, name, function, tuple(FUNCTIONS))


class Applied:
    """One application of a function, as its backward needs it.

    Attributes
    ----------
    z, y : ndarray
        Input and output. Only whoever asked for the input (see `Activated`) has z.
    of_input : bool
        Whether the gradient that comes back is that of z already, because the loss was
        computed from z.
    """

    __slots__ = ("of_input", "y", "z")

    def __init__(self, z, y):
        self.z, self.y, self.of_input = z, y, False


class Activated(Module):
    """Base of the layers whose last operation may be one of `FUNCTIONS`.

    A loss may ask for the function's input, with `watched` and `last_applied`: it is
    then more exact than what could be computed from the output.
    """

    _saved = False

    watched = False
    last_applied = None

    def _apply(self, function, z):
        """The `Applied` of a function to `z`."""
        applied = Applied(z if self.watched else None, FUNCTIONS[function][0](z))
        if self.watched:
            self.last_applied = applied
        return applied

    @staticmethod
    def _gradient(function, dy, applied):
        """Gradient of the function's input."""
        return dy if applied.of_input else FUNCTIONS[function][1](dy, applied.y)


class Activation(Activated):
    """A function of every element, or of the last axis for softmax.

    Parameters
    ----------
    function : {"elu", "relu", "sigmoid", "softmax", "softplus", "softsign", "tanh"}
        Or the function of that name from `fastrnn.activations`.

    Raises
    ------
    ValueError
        If `function` is another.

    Notes
    -----
    As the last layer of a model that is compiled with a cross-entropy, sigmoid and
    softmax make its outputs probabilities: see `Model.compile`.

    Examples
    --------
    >>> layer = Activation("softmax")
    >>> layer(np.zeros((2, 4)))[0]
    array([0.25, 0.25, 0.25, 0.25])
    """

    supports_masking = True
    _changeable: ClassVar = {"function": by(by_name)}

    def __init__(self, function: str) -> None:
        self.function = function

    def forward(self, x: ArrayLike) -> Array:
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
        ValueError
            If `x` is a single number, and the function is of an axis.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, checks.float_dtype(x))
        if x.ndim == 0 and self.function == "softmax":
            raise ValueError(f"{who}: x must have shape (..., classes), got ()")
        applied = self._apply(self.function, x)
        self._keep(applied)
        return applied.y

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
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
        applied = context.saved
        dy = checks.float_array(who, "dy", dy, applied.y.dtype)
        checks.same_shape(who, "dy", dy, "y", applied.y.shape)
        dx = self._gradient(self.function, dy, applied)
        context.release()
        return dx

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return repr(self.function) if type(self) is Activation else ""


class ReLU(Activation):
    """The larger of 0 and every element.

    Examples
    --------
    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self) -> None:
        super().__init__("relu")


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))`` of every element.

    Examples
    --------
    >>> Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """

    def __init__(self) -> None:
        super().__init__("sigmoid")


class Softmax(Activation):
    """Exponentials over their sum along the last axis.

    Examples
    --------
    >>> Softmax()(np.log([[1.0, 3.0]]))
    array([[0.25, 0.75]])
    """

    def __init__(self) -> None:
        super().__init__("softmax")


class Tanh(Activation):
    """Hyperbolic tangent of every element.

    Examples
    --------
    >>> Tanh()(np.zeros(2))
    array([0., 0.])
    """

    def __init__(self) -> None:
        super().__init__("tanh")
