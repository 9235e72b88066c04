# SPDX-License-Identifier: BSD-3-Clause
"""`TimeDistributed`: a layer around another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


class TimeDistributed(Module):
    """One layer applied to every time step of every sequence.

    The two outer axes of the input become one, the layer runs once over all of it, and
    its output gets the two axes back. `Linear`, `Embedding`, `Dropout` and `LayerNorm`
    act on the last axis and need no such help; it is for layers that take one leading
    axis, such as a recurrent layer over the letters of each word of a sentence.

    Parameters
    ----------
    layer : Module
        What runs on each step. One of sequences, or one inside it, must be
        ``batch_first``; of what a recurrent layer returns, its output ``y`` goes on.

    Raises
    ------
    TypeError
        If `layer` is not a Module.
    ValueError
        If a layer of sequences is not ``batch_first``.

    Examples
    --------
    >>> letters = fastrnn.LSTM(8, 16, batch_first=True, seed=0)
    >>> layer = TimeDistributed(letters)
    >>> y = layer(np.ones((5, 3, 7, 8)))  # 5 words, 3 sentences, 7 letters of 8 numbers
    >>> y.shape
    (5, 3, 7, 16)
    >>> layer.backward(np.ones_like(y)).shape
    (5, 3, 7, 8)
    """

    supports_masking = True

    def __init__(self, layer: Module) -> None:
        who = type(self).__name__
        if not isinstance(layer, Module):
            raise TypeError(
                f"{who}: layer must be a Module, got {type(layer).__name__}"
            )
        for part in layer.modules():  # of a Bidirectional or Sequential, too
            if not getattr(part, "batch_first", True):
                raise ValueError(
                    f"{who}: a layer of sequences must be batch_first, got {part!r}"
                )
        self.layer = layer

    def forward(self, x: ArrayLike) -> Array:
        """Run the layer on every step.

        Parameters
        ----------
        x : array_like, shape (T, B, ...)
            Or (B, T, ...): both are kept.

        Returns
        -------
        ndarray, shape (T, B, ...)

        Raises
        ------
        ValueError, TypeError
            If `x` has fewer than two axes, and what the layer raises.
        """
        who = type(self).__name__
        x = checks.as_array(who, "x", x)
        if x.ndim < 2:
            raise ValueError(f"{who}: x must have shape (T, B, ...), got {x.shape}")
        y = self.layer(x.reshape(-1, *x.shape[2:]))
        y = y[0] if isinstance(y, tuple) else y
        self._keep((x.shape, y.shape, self.layer.context))
        return y.reshape(*x.shape[:2], *y.shape[1:])

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Accumulate the layer's gradients and return the input's.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray or None
            Shaped like the input; None where the layer's input has no gradient.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        context = self._context(context)
        x_shape, y_shape, kept = context.saved
        dy = checks.as_array(f"{type(self).__name__}.backward", "dy", dy)
        expected = (*x_shape[:2], *y_shape[1:])
        checks.same_shape(f"{type(self).__name__}.backward", "dy", dy, "y", expected)
        dx = self.layer.backward(
            dy.reshape(y_shape), **({} if kept is None else {"context": kept})
        )
        dx = dx[0] if isinstance(dx, tuple) else dx
        context.release()
        return None if dx is None else dx.reshape(x_shape)
