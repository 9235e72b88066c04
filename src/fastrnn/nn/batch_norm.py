# SPDX-License-Identifier: BSD-3-Clause
"""`BatchNormalization`: each feature shifted and scaled to one size over a batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import joint, masking
from fastrnn.nn.attributes import by
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.nn.sized import SizedAtFirstCall
from fastrnn.util import checks
from fastrnn.util.typing import Array


class _MovingStatistics(Module):
    """Means and variances that forwards move: parameters that no training changes."""

    # The layer's forward writes them. They stay out of every optimiser's sight,
    # whatever becomes of `trainable` in the model that they are in.
    _trainable = property(lambda self: False, lambda self, value: None)
    _written_by_forward = True

    def __init__(self, n, dtype):
        self._declare({"mean": (n,), "variance": (n,)}, dtype)
        self._param["variance"].fill(1)


class BatchNormalization(SizedAtFirstCall):
    """Each feature shifted and scaled by its mean and variance over a batch.

    In training these are the batch's own, over all axes but the features', and a
    moving mean of each is kept. In eval mode, and while the layer is not `trainable`,
    the moving ones are used and stay as they are. In a distributed run they are those
    of the joint batch, which costs three small exchanges a step.

    Parameters
    ----------
    axis : int
        The axis of features.
    momentum : float in [0, 1]
        How much of a moving statistic stays: it becomes
        ``momentum * moving + (1 - momentum) * batch``.
    epsilon : float > 0
        Added to the variance.
    center : bool
        Whether ``bias`` is added to the result.
    scale : bool
        Whether the result is multiplied by ``weight``.
    num_features : int, optional
        How many features there are. Default: found at the first call.
    dtype : {"float32", "float64"}
        Type of parameters, input and output.

    Attributes
    ----------
    parameters : mapping
        ``weight``, ones at first, ``bias``, zeros, ``moving.mean``, zeros, and
        ``moving.variance``, ones, each of shape (num_features,). The last two are
        saved and loaded as all others are, and no optimiser changes them.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    Arguments and results are those of Keras: the variance is that of the population,
    and PyTorch's momentum is one less this one. Steps that a mask leaves out count in
    neither mean nor variance, and are shifted and scaled as the others.

    With :math:`s = 1 / \\sqrt{\\sigma^2 + \\epsilon}`, :math:`n = s (x - \\mu)` and
    :math:`g = dy \\cdot w`, the gradient is
    :math:`dx = s (g - m (\\sum g + n \\sum g n) / M)`, where m is 1 for the M numbers
    of a feature that count and 0 for others.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network
       Training by Reducing Internal Covariate Shift", ICML 2015.

    Examples
    --------
    >>> layer = BatchNormalization()
    >>> layer
    BatchNormalization(num_features=None)
    >>> layer(np.array([[1.0, 5.0], [3.0, 5.0]])).round(2)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    >>> layer.parameters["moving.mean"]
    array([0.02, 0.05], dtype=float32)
    """

    _size_keyword = _input_size_name = "num_features"
    _child_names = ("moving",)
    supports_masking = True
    _changeable: ClassVar = {
        "momentum": by(checks.probability),
        "epsilon": by(checks.real_in, "(0, inf)"),
    }

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        num_features: int | None = None,
        dtype: str = "float32",
    ) -> None:
        who = type(self).__name__
        self.axis = checks.integer(who, "axis", axis)
        self.momentum, self.epsilon = momentum, epsilon
        self.center = checks.flag(who, "center", center)
        self.scale = checks.flag(who, "scale", scale)
        self.num_features = checks.positive_int(who, "num_features", num_features)
        names = [("weight", self.scale), ("bias", self.center)]
        shapes = {name: (self.num_features,) for name, wanted in names if wanted}
        if shapes:
            self._declare(shapes, dtype)
        if self.scale:
            self._param["weight"].fill(1)
        self.moving = _MovingStatistics(self.num_features, dtype)

    def forward(self, x: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
        """Normalise `x`.

        Parameters
        ----------
        x : array_like
            Of at least two axes, of which that of features has num_features.
        mask : array_like of bool, optional
            Which rows or steps count, laid out like the first axes of `x`.

        Returns
        -------
        ndarray, shape of `x`

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers with these features, or `mask` does not fit.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, self.dtype)
        axis = self._features_axis(x.shape)
        moving = self.moving._param
        own = self.training and self._trainable
        spread = self._spread(x.ndim, axis)
        if not own:
            inverse = (1 / np.sqrt(moving["variance"] + self.epsilon)).astype(x.dtype)
            n = (x - spread(moving["mean"])) * spread(inverse)
            self._keep((n, inverse, None, axis))
            return self._scaled(n, spread)
        counts, weights = self._counts(x, mask, axis)
        others = tuple(k for k in range(x.ndim) if k != axis)
        total, counts = joint.summed(_sums(x, weights, others), np.float64(counts))
        counts = np.maximum(counts, 1)
        mean = total / counts
        n = x - spread(mean.astype(x.dtype))
        (squares,) = joint.summed(_sums(np.square(n), weights, others))
        variance = squares / counts
        inverse = (1 / np.sqrt(variance + self.epsilon)).astype(x.dtype)
        n *= spread(inverse)
        y = self._scaled(n, spread)
        self._keep((n, inverse, (counts, weights), axis))
        for name, found in (("mean", mean), ("variance", variance)):
            moving[name] *= self.momentum
            moving[name] += (1 - self.momentum) * found
        return y

    def _features_axis(self, shape):
        """The number of the axis of features, from the first one on."""
        who, n = type(self).__name__, len(shape)
        if n < 2 or not -n <= self.axis < n or self.axis % n == 0:
            raise ValueError(
                f"{who}: axis must be an axis of x other than that of samples, "
                f"got {self.axis} for x of shape {shape}"
            )
        axis = self.axis % n
        if shape[axis] != self.num_features:
            raise ValueError(
                f"{who}: x must have num_features = {self.num_features} on axis "
                f"{self.axis}, got shape {shape}"
            )
        return axis

    @staticmethod
    def _spread(ndim, axis):
        """What lays out numbers of features along the axis of features."""
        shape = [1] * ndim
        shape[axis] = -1
        return lambda values: values.reshape(shape)

    def _scaled(self, n, spread):
        y = n * spread(self._param["weight"]) if self.scale else n.copy()
        if self.center:
            y += spread(self._param["bias"])
        return y

    def _counts(self, x, mask, axis):
        """How many numbers of a feature count, and 1 or 0 for each; None for all."""
        who = type(self).__name__
        joint.check_rows(who, x.shape)
        if joint.now.share is not None and not joint.now.share.counts:
            return 0, np.zeros((1,) * x.ndim, x.dtype)
        if mask is None:
            return x.size // self.num_features, None
        mask = masking.check(who, mask, x.shape)
        if axis < mask.ndim:
            raise ValueError(
                f"{who}: mask must be of axes before that of features, "
                f"got shape {mask.shape} with axis={self.axis}"
            )
        rest = math.prod(x.shape[mask.ndim :]) // self.num_features
        weights = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        return int(np.count_nonzero(mask)) * rest, weights.astype(x.dtype)

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
        n, inverse, of_batch, axis = context.saved
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", n.shape)
        spread = self._spread(n.ndim, axis)
        others = tuple(k for k in range(n.ndim) if k != axis)
        along, total = _sums(dy * n, None, others), _sums(dy, None, others)
        weight = self._param["weight"] if self.scale else 1
        factor = spread(np.asarray(inverse * weight))
        if of_batch is None:
            dx = dy * factor
        else:
            counts, weights = of_batch
            of_all, sum_of_all = joint.summed(along, total)
            away = n * spread((of_all / counts).astype(n.dtype))
            away += spread((sum_of_all / counts).astype(n.dtype))
            if weights is not None:
                away *= weights
            dx = np.subtract(dy, away, out=away)
            dx *= factor
        sums = {"weight": along.astype(n.dtype), "bias": total.astype(n.dtype)}
        context.release()
        if self._trainable:
            for name, grad in self._grad.items():
                grad += sums[name]
        return dx

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        shown = [f"num_features={self.num_features}"]
        shown += [] if self.axis == -1 else [f"axis={self.axis}"]
        shown += [] if self.momentum == 0.99 else [f"momentum={self.momentum:g}"]
        shown += [] if self.epsilon == 1e-3 else [f"epsilon={self.epsilon:g}"]
        shown += [] if self.center else ["center=False"]
        shown += [] if self.scale else ["scale=False"]
        return ", ".join(shown)

    def __repr__(self):
        return f"{type(self).__name__}({self.extra_repr()})"


def _sums(array, weights, axes):
    """Sums over axes in float64, each number times its weight, if there are weights."""
    array = array if weights is None else array * weights
    return array.sum(axis=axes, dtype=np.float64)
