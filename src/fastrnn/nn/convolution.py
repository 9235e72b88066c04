# SPDX-License-Identifier: BSD-3-Clause
"""`Conv1D`: a convolution over the steps of sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core, threads
from fastrnn.native.memory import Pool
from fastrnn.nn import schemes
from fastrnn.nn.activation import Activated
from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.init import fan_in_uniform_, uniform_
from fastrnn.nn.layers import activation_rule
from fastrnn.nn.sized import SizedAtFirstCall
from fastrnn.nn.windows import PADDINGS, Windows
from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed


def _schemes(in_channels, kernel_size):
    """By scheme, the initialisers of a convolution's parameters."""
    fan_in = in_channels * kernel_size

    def from_fan_in(array, seed):
        fan_in_uniform_(array, fan_in, seed=seed)

    def glorot(array, seed):
        bound = math.sqrt(6 / (fan_in + len(array) * kernel_size))
        uniform_(array, -bound, bound, seed=seed)

    return {
        "keras": {"weight": glorot, "bias": schemes.zeros_},
        "torch": {"weight": from_fan_in, "bias": from_fan_in},
    }


class Conv1D(BatchFirst, SizedAtFirstCall, Activated):
    """Each window of steps mapped to a vector: ``y_t = f(W window_t + b)``.

    Parameters
    ----------
    filters : int
        Width of the output.
    kernel_size : int
        Steps in a window.
    strides : int
        Steps from one window to the next.
    padding : {"valid", "same", "causal"}
        With "valid" windows are within the sequence. With "same" there are
        ``ceil(T / strides)``, and beyond the sequence is zero. With "causal" there are
        as many, each of which ends at a step, and zeros before the sequence.
    dilation_rate : int
        Steps from one step of a window to its next.
    activation : str, optional
        A function of the result: any that `Activation` takes.
    use_bias : bool
        Whether there is a ``b``.
    in_channels : int, optional
        Width of the input. Default: found at the first call.
    batch_first : bool
        Whether sequences are (B, T, features) instead of (T, B, features). In a model
        they are.
    init : {"keras", "torch"}, callable or mapping
        First values of ``weight`` and ``bias``, in the forms that `LSTM` takes.
        "keras": Glorot's uniform, whose fans are those of all steps of a window, and 0.
        "torch": both U(-k, k), k = 1 / sqrt(in_channels kernel_size).
    dtype : {"float32", "float64"}
        Type of parameters, input and output.
    seed : int or numpy.random.Generator, optional
        For the first values, the weight first.

    Attributes
    ----------
    parameters : mapping
        ``weight`` of shape (filters, in_channels, kernel_size) and ``bias`` of
        (filters,), as of `torch.nn.Conv1d`.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    The arguments have Keras's names. As in Keras, a mask ends here with a warning. The
    windows are copied out of the input, kernel_size times its size, and mapped as by a
    `Linear`.

    Examples
    --------
    >>> layer = Conv1D(4, 3, batch_first=True, seed=0)
    >>> layer(np.zeros((2, 10, 5))).shape
    (2, 8, 4)
    >>> layer
    Conv1D(in_channels=5, filters=4, kernel_size=3)
    """

    _size_keyword = _input_size_name = "in_channels"
    _input_size_axis = 1
    _first_values = ("init",)
    _changeable: ClassVar = {"batch_first": flag, "activation": activation_rule}

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        dilation_rate: int = 1,
        activation: str | Callable[..., Any] | None = None,
        use_bias: bool = True,
        *,
        in_channels: int | None = None,
        batch_first: bool = False,
        init: schemes.Init = schemes.DEFAULT,
        dtype: str = "float32",
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        self.filters = checks.positive_int(who, "filters", filters)
        self.kernel_size = checks.positive_int(who, "kernel_size", kernel_size)
        self.strides = checks.positive_int(who, "strides", strides)
        self.padding = checks.choice(who, "padding", padding, PADDINGS)
        self.dilation_rate = checks.positive_int(who, "dilation_rate", dilation_rate)
        if self.strides > 1 and self.dilation_rate > 1:
            raise ValueError(
                f"{who}: strides and dilation_rate must not both be above 1, "
                f"got {strides} and {dilation_rate}"
            )
        self.activation = activation
        self.use_bias = checks.flag(who, "use_bias", use_bias)
        self.in_channels = checks.positive_int(who, "in_channels", in_channels)
        self.batch_first = batch_first
        rng = checks.generator(who, seed)
        shapes = {"weight": (self.filters, self.in_channels, self.kernel_size)}
        if self.use_bias:
            shapes["bias"] = (self.filters,)
        self._declare(shapes, dtype)
        schemes.fill(
            who, init, self._param, _schemes(self.in_channels, self.kernel_size), rng
        )
        self._pool = Pool(most=2)  # one array forward, one backward

    def forward(self, x: ArrayLike) -> Array:
        """Map the windows of `x`.

        Parameters
        ----------
        x : array_like, shape (T, B, in_channels) or (B, T, in_channels)

        Returns
        -------
        ndarray, shape (windows, B, filters) or (B, windows, filters)

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers in such a shape, or not one window fits.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, self.dtype)
        axis = 1 if self.batch_first else 0
        letters = ("B", "T") if self.batch_first else ("T", "B")
        sizes = (None, None, self.in_channels)
        checks.shape(who, "x", x, (*letters, "in_channels"), sizes)
        made = Windows(
            who, x.shape[axis], self.kernel_size, self.strides, self.padding,
            self.dilation_rate,
        )  # fmt: skip
        rows = np.ascontiguousarray(made.of(x, axis, 0))  # (., ., channels, steps)
        y = np.empty((*rows.shape[:2], self.filters), self.dtype)
        sizes = self._sizes(rows)
        kernels, n_threads = core.kernels(self.dtype), threads.for_kernel()
        size = kernels.linear_work_size(False, *sizes, n_threads)
        work = self._pool.array(size, self.dtype)
        kernels.linear_forward(
            n_threads, *sizes, rows, self._matrix(self._param), self._param.get("bias"),
            y, work,
        )  # fmt: skip
        applied = None
        if self.activation is not None:
            applied = self._apply(self.activation, y)
            y = applied.y
        self._keep((made, axis, rows, y.shape, applied))
        return y

    def _sizes(self, rows):
        width = self.in_channels * self.kernel_size
        return rows.size // width, width, self.filters

    def _matrix(self, arrays):
        return arrays["weight"].reshape(self.filters, -1)

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
        made, axis, rows, shape, applied = context.saved
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        if applied is not None:
            dy = np.ascontiguousarray(self._gradient(self.activation, dy, applied))
        drows = np.empty_like(rows)
        kernels, n_threads = core.kernels(self.dtype), threads.for_kernel()
        grads = None, None
        if self._trainable:
            grads = self._matrix(self._grad), self._grad.get("bias")
        sizes = self._sizes(rows)
        size = kernels.linear_work_size(True, *sizes, n_threads)
        work = self._pool.array(size, self.dtype)
        outer = list(rows.shape[:2])
        outer[axis] = made.length
        dx = np.empty((*outer, self.in_channels), self.dtype)
        core.prepare(n_threads)  # nothing can fail after that
        context.release()
        kernels.linear_backward(
            n_threads, *sizes, rows, self._matrix(self._param), dy, drows, *grads, work
        )
        return made.back(axis, np.moveaxis(drows, -1, 0), into=dx)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        defaults = {
            "strides": 1, "padding": "valid", "dilation_rate": 1, "activation": None,
            "use_bias": True,
        }  # fmt: skip
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in ("in_channels", "filters", "kernel_size")
        ]
        shown += [
            f"{name}={getattr(self, name)!r}"
            for name, usual in defaults.items()
            if getattr(self, name) != usual
        ]
        return ", ".join(shown)
