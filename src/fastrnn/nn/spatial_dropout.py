# SPDX-License-Identifier: BSD-3-Clause
"""`SpatialDropout1D`: dropout of whole features of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.layers import Dropout
from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed


class SpatialDropout1D(BatchFirst, Dropout):
    """In training, zero each feature of a sequence with probability p, at all steps.

    The rest is multiplied by 1 / (1 - p), so that the mean stays as it is. In eval mode
    the input passes unchanged. Before a recurrent layer this is the dropout of inputs
    that has one mask for all steps.

    Parameters
    ----------
    p : float in [0, 1]
        Probability of a feature to be zeroed.
    seed : int or numpy.random.Generator, optional
        For the choice of features.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.

    Attributes
    ----------
    generator : numpy.random.Generator
        Where the choices come from; its state is part of a run that is to be resumed.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    References
    ----------
    .. [1] J. Tompson et al., "Efficient Object Localization Using Convolutional
       Networks", CVPR 2015.

    Examples
    --------
    >>> layer = SpatialDropout1D(0.5, seed=0, batch_first=True)
    >>> y = layer(np.ones((2, 3, 20)))
    >>> bool((y == y[:, :1]).all()), sorted(set(y.ravel().tolist()))
    (True, [0.0, 2.0])
    """

    _changeable: ClassVar = {"batch_first": flag}

    @overload
    def __init__(
        self, p: float = ..., *, seed: Seed = ..., batch_first: bool = ...
    ) -> None: ...
    @overload
    def __init__(
        self, *, rate: float, seed: Seed = ..., batch_first: bool = ...
    ) -> None: ...
    def __init__(
        self, p: float = 0.5, *, seed: Seed = None, batch_first: bool = False
    ) -> None:
        super().__init__(p, seed=seed)
        self.batch_first = batch_first

    def forward(self, x: ArrayLike) -> Array:
        """Drop features of `x`.

        Parameters
        ----------
        x : array_like, shape (T, B, features) or (B, T, features)
            float64 stays so; everything else becomes float32.

        Returns
        -------
        ndarray, shape of `x`
            In eval mode, `x` itself where it needed no conversion.

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers in such a shape.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, checks.float_dtype(x))
        axes = ("B", "T") if self.batch_first else ("T", "B")
        checks.shape(who, "x", x, (*axes, "features"), (None, None, None))
        if not self.training:
            self._keep(None)
            return x
        axis = 1 if self.batch_first else 0
        ones = np.ones_like(x[:, :1] if axis == 1 else x[:1])
        factors = np.empty_like(ones)
        y = np.empty_like(x)  # a choice is drawn once nothing can fail any more
        self._drop(self._draw(ones if axis == 1 else ones[0]), ones, factors)
        np.multiply(x, factors, out=y)
        self._keep((factors, x.shape, x.dtype))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def _gradient(self, dy, factors):
        return dy * factors
