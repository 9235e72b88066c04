# SPDX-License-Identifier: BSD-3-Clause
"""`LayerNorm`: features of one example, shifted and scaled to one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.attributes import by
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


class LayerNorm(Module):
    """Each example's features shifted and scaled to mean 0 and variance 1.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes, over which mean and variance are taken. None is the
        last axis, found at the first call.
    eps : float > 0
        Added to the variance.
    elementwise_affine : bool
        Whether the result is multiplied by ``weight`` and moved by ``bias``.
    bias : bool
        False leaves the latter out.
    dtype : {"float32", "float64"}
        Type of parameters, input and output.

    Attributes
    ----------
    parameters : mapping
        ``weight``, ones at first, and ``bias``, zeros, of shape normalized_shape.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    With :math:`n = (x - \\mu) / \\sqrt{\\sigma^2 + \\epsilon}` and
    :math:`g = dy \\cdot w`, the gradient is
    :math:`dx = (g - \\bar g - n \\, \\overline{g n}) / \\sqrt{\\sigma^2 + \\epsilon}`.

    References
    ----------
    .. [1] J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> layer = LayerNorm(3)
    >>> layer([[1.0, 2.0, 3.0]]).round(3)
    array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """

    _input_size_name = "normalized_shape"
    supports_masking = True
    _changeable: ClassVar = {"eps": by(checks.real_in, "(0, inf)")}

    def __init__(
        self,
        normalized_shape: int | Sequence[int] | None,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: str = "float32",
    ) -> None:
        who = type(self).__name__
        sizes = normalized_shape
        sizes = tuple(sizes) if isinstance(sizes, tuple | list) else (sizes,)
        if not sizes:
            raise ValueError(f"{who}: normalized_shape must have an axis, got ()")
        self.normalized_shape = tuple(
            checks.positive_int(who, "normalized_shape", size) for size in sizes
        )
        self.eps = eps
        self.elementwise_affine = checks.flag(
            who, "elementwise_affine", elementwise_affine
        )
        self.bias = checks.flag(who, "bias", bias) and self.elementwise_affine
        self._dtype = checks.dtype_name(who, dtype)
        if self.elementwise_affine:
            names = ("weight", "bias") if self.bias else ("weight",)
            self._declare(dict.fromkeys(names, self.normalized_shape), dtype)
            self._param["weight"].fill(1)

    def forward(self, x: ArrayLike) -> Array:
        """Normalise `x`.

        Parameters
        ----------
        x : array_like, whose last axes have the shape normalized_shape

        Returns
        -------
        ndarray, shape of `x`

        Raises
        ------
        ValueError, TypeError
            If the last axes of `x` are not normalized_shape, or `x` is not real
            numbers.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, self.dtype)
        letters = ("...", *("normalized_shape",) * len(self.normalized_shape))
        checks.shape(who, "x", x, letters, (None, *self.normalized_shape))
        n = x.reshape(-1, math.prod(self.normalized_shape))
        n = n - n.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", n, n) / n.shape[1]
        scale = (1 / np.sqrt(variance + self.eps)).astype(n.dtype)[:, None]
        n *= scale
        self._keep((n, scale, x.shape))
        y = n.copy() if self.training and not self.elementwise_affine else n
        if self.elementwise_affine:
            y = n * self._param["weight"].reshape(-1)
        if self.bias:
            y += self._param["bias"].reshape(-1)
        return y.reshape(x.shape)

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Accumulate the parameters' gradients and return the input's.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape of the input

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        n, scale, shape = context.saved
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        # Few passes and two new arrays: this is bound by memory.
        dy = dy.reshape(n.shape)
        product = dy * n
        sums = []
        if self.elementwise_affine:
            if self._trainable:
                parts = [product, dy] if self.bias else [product]
                # NumPy adds rows one after the other, which is exact enough in double.
                sums = [np.add.reduce(part, 0, np.float64) for part in parts]
                sums = [part.astype(n.dtype) for part in sums]
            weight = self._param["weight"].reshape(-1) / n.shape[1]
            mean, along = dy @ weight, product @ weight
            dx = dy * self._param["weight"].reshape(-1)
        else:
            mean, along = dy.mean(axis=1), product.mean(axis=1)
            dx = dy.copy()
        dx -= mean[:, None]
        dx -= np.multiply(n, along[:, None], out=product)
        dx *= scale
        context.release()
        for grad, part in zip(self._grad.values(), sums, strict=bool(sums)):
            grad += part.reshape(self.normalized_shape)
        return dx.reshape(shape)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        size = self.normalized_shape
        shown = [str(size[0] if len(size) == 1 else size)]
        shown += [] if self.eps == 1e-5 else [f"eps={self.eps:g}"]
        if not self.elementwise_affine:
            shown.append("elementwise_affine=False")
        elif not self.bias:
            shown.append("bias=False")
        return ", ".join(shown)
