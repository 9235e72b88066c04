# SPDX-License-Identifier: BSD-3-Clause
"""`Linear` and `Dropout`.

This file is longer than others, because `Linear` stands here with all of its forms.
Both take and return NumPy arrays. Data is converted to the layer's dtype where it can
be. What forward keeps for backward it keeps by reference: an input must not be written
to between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core, threads
from fastrnn.native.memory import Pool, aligned
from fastrnn.nn import computing, joint, schemes
from fastrnn.nn import quantized as quantizing
from fastrnn.nn.activation import Activated, by_name
from fastrnn.nn.attributes import by
from fastrnn.nn.context import Context
from fastrnn.nn.init import fan_in_uniform_, xavier_uniform_
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed


def activation_rule(layer, name, value):
    """The rule of `activation`: None or a function's name; Keras's "linear" is None."""
    if value in (None, "linear"):
        return None
    return by_name(type(layer).__name__, name, value)


def _schemes(in_features):
    """By scheme, the initialisers of a linear layer's parameters."""

    def from_fan_in(array, seed):
        fan_in_uniform_(array, in_features, seed=seed)

    def glorot(array, seed):
        xavier_uniform_(array, seed=seed)

    return {
        "keras": {"weight": glorot, "bias": schemes.zeros_},
        "torch": {"weight": from_fan_in, "bias": from_fan_in},
    }


_MATRICES = ("weight",)  # of parameters that `quantize` makes smaller


class Linear(Activated):
    """Affine map ``y = x W^T + b`` of the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Width of input and output. ``Linear(5)`` is Keras's ``Dense(5)``: five outputs,
        the width of the input being found at the first call.
    bias : bool
        Whether there is a ``b``.
    activation : str, optional
        A function of the result, ``y = f(x W^T + b)``: any that `Activation` takes.
        None and "linear" are no function.
    init : {"keras", "torch"}, callable or mapping
        First values of ``weight`` and ``bias``, in the forms that `LSTM` takes.
        "keras": Glorot's uniform, and 0. "torch": both U(-k, k), k = 1 /
        sqrt(in_features).
    dtype : {"float32", "float64"}
        Type of parameters, input and output.
    compute : {"float32", "float64", "bfloat16", "bfloat16-fast"}, optional
        "bfloat16", for a float32 layer: x, the weight and dy are rounded to bfloat16
        where they are multiplied; sums, and all that is stored, stay float32.
        "bfloat16-fast" also leaves the order of sums to the processor. Default:
        `dtype`. It may be set later on.
    quantized : {"int8", "bfloat16"}, optional
        What the weight is stored as, of a layer for inference alone, which `quantize`
        makes of a trained one. Default: numbers of `dtype`.
    seed : int or numpy.random.Generator, optional
        For the first values, the weight first.

    Attributes
    ----------
    parameters : mapping
        ``weight`` of shape (out_features, in_features), ``bias`` of (out_features,).

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> layer = Linear(3, 2, seed=0)
    >>> y = layer(np.ones((5, 4, 3)))
    >>> y.shape, y.dtype
    ((5, 4, 2), dtype('float32'))
    >>> layer.backward(np.ones_like(y)).shape
    (5, 4, 3)
    """

    _input_size_name, _units_name = "in_features", "out_features"
    _later_arguments = ("activation", "compute", "quantized")
    _first_values = ("init",)
    _changeable: ClassVar = {"activation": activation_rule, "compute": computing.rule}
    supports_masking = True
    _count_threads = staticmethod(threads.for_kernel)  # unless for another library

    @overload
    def __init__(
        self,
        units: int,
        activation: str | Callable[..., Any] | None = ...,
        use_bias: bool = ...,
        *,
        input_shape: Sequence[int | None] = ...,
        batch_input_shape: Sequence[int | None] = ...,
        input_dim: int = ...,
        init: schemes.Init = ...,
        dtype: str = ...,
        compute: str | None = ...,
        quantized: str | None = ...,
        seed: Seed = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        bias: bool = ...,
        *,
        activation: str | Callable[..., Any] | None = ...,
        init: schemes.Init = ...,
        dtype: str = ...,
        compute: str | None = ...,
        quantized: str | None = ...,
        seed: Seed = ...,
    ) -> None: ...
    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | Callable[..., Any] | None = None,
        init: schemes.Init = schemes.DEFAULT,
        dtype: str = "float32",
        compute: str | None = None,
        quantized: str | None = None,
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        self.in_features = checks.positive_int(who, "in_features", in_features)
        self.out_features = checks.positive_int(who, "out_features", out_features)
        self.bias = checks.flag(who, "bias", bias)
        self.activation = activation
        rng = checks.generator(who, seed)
        shapes = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        self.quantized, first_values = quantized, self._param
        if quantized is None:
            self._declare(shapes, dtype)
        else:
            self._check_quantized(quantized, dtype, compute)
            self._fix(quantizing.shapes(shapes, quantized, _MATRICES))
            first_values = quantizing.zeros(shapes)
        self.compute = compute
        schemes.fill(who, init, first_values, _schemes(self.in_features), rng)
        if quantized is not None:
            first = quantizing.first(who, first_values, quantized, _MATRICES)
            self._set_fixed(first)
        self._pool = Pool(most=2)  # one array forward, one backward

    def forward(self, x: ArrayLike) -> Array:
        """Map `x`.

        Parameters
        ----------
        x : array_like, shape (..., in_features)

        Returns
        -------
        ndarray, shape (..., out_features)

        Raises
        ------
        ValueError
            If the last axis of `x` is not in_features long.
        TypeError
            If `x` is not real numbers.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, self.dtype)
        checks.shape(who, "x", x, ("...", "in_features"), (None, self.in_features))
        y = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        n_threads = self._count_threads()
        sizes = x.size // self.in_features, self.in_features, self.out_features
        if self.quantized is not None:
            self._map_quantized(n_threads, sizes, x, y)
            self.__dict__["context"] = None
            return y if self.activation is None else self._apply(self.activation, y).y
        kernels = core.kernels(self.compute or self._dtype)
        size = kernels.linear_work_size(False, *sizes, n_threads)
        work = self._pool.array(size, self.dtype)
        kernels.linear_forward(
            n_threads,
            *sizes,
            x,
            self._param["weight"],
            self._param.get("bias"),
            y,
            work,
        )
        applied = None
        if self.activation is not None:
            applied = self._apply(self.activation, y)
            y = applied.y
        self._keep((x, applied, kernels))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def quantize(self, weights: str = "int8") -> Self:
        """A copy for inference whose weight takes one byte or two an element.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}
            See `LSTM.quantize`.

        Returns
        -------
        Linear
            Made with ``quantized=weights``. This layer stays as it is.

        Raises
        ------
        ValueError
            If the layer is not one of float32, or a weight is not finite and `weights`
            is "int8".

        Examples
        --------
        >>> layer = Linear(64, 3, seed=0)
        >>> layer.quantize("int8")
        Linear(64, 3, quantized='int8')
        """
        who = f"{type(self).__name__}.quantize"
        quantizing.check_format(who, "weights", weights)
        quantizing.check_whole(who, self)
        return quantizing.copy_of(who, self, weights, _MATRICES)

    def _check_quantized(self, kind, dtype, compute):
        """Refuse a format that there is not, or what no kernel has it for."""
        who = type(self).__name__
        quantizing.check_format(who, "quantized", kind)
        if dtype != "float32" or compute not in (None, dtype):
            raise ValueError(
                f"{who}: quantized={kind!r} is for dtype='float32' and no other "
                f"compute, got dtype={dtype!r} and compute={compute!r}"
            )

    def _fixed_changed(self):
        self._packed = None, None

    def _map_quantized(self, n_threads, sizes, x, y):
        """Write what the weight of fewer bytes maps x to."""
        kernels = core.kernels("float32", self.quantized)
        known, packed = self._packed
        if known is not kernels:
            fixed, shape = self._fixed, sizes[1:]
            size = kernels.quantized_linear_packed_size(*shape)
            packed = aligned(size, "float32")
            kernels.pack_quantized_linear(
                *shape, fixed["weight"], fixed.get("weight" + quantizing.SCALE),
                fixed.get("bias"), packed,
            )  # fmt: skip
            self._packed = kernels, packed
        size = kernels.quantized_linear_work_size(self.in_features, n_threads)
        work = self._pool.array(size, "float32")
        kernels.quantized_linear(n_threads, *sizes, x, packed, y, work)

    def __getstate__(self):
        state = super().__getstate__()
        if "_packed" in state:
            state["_packed"] = None, None
        return state

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Accumulate the parameters' gradients and return the input's.

        Parameters
        ----------
        dy : array_like, shape (..., out_features)
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape (..., in_features)

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        quantizing.check_backward(who, self.quantized)
        context = self._context(context)
        x, applied, kernels = context.saved
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", (*x.shape[:-1], self.out_features))
        if applied is not None:
            dy = self._gradient(self.activation, dy, applied)
        dx = np.empty_like(x)
        n_threads = threads.for_kernel()
        sizes = x.size // self.in_features, self.in_features, self.out_features
        grads = None, None
        if self._trainable:
            grads = self._grad["weight"], self._grad.get("bias")
        size = kernels.linear_work_size(True, *sizes, n_threads)
        work = self._pool.array(size, self.dtype)
        core.prepare(n_threads)  # nothing can fail after that
        context.release()
        kernels.linear_backward(
            n_threads,
            *sizes,
            x,
            self._param["weight"],
            dy,
            dx,
            *grads,
            work,
        )
        return dx

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        bias = "" if self.bias else ", bias=False"
        function = self.activation
        activation = "" if function is None else f", activation={function!r}"
        compute = "" if self.compute is None else f", compute={self.compute!r}"
        small = "" if self.quantized is None else f", quantized={self.quantized!r}"
        sizes = f"{self.in_features}, {self.out_features}"
        return f"{sizes}{bias}{activation}{compute}{small}"


def _generator(layer, name, value):
    """The rule of `Dropout.generator`."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"{type(layer).__name__}: {name} must be a numpy.random.Generator, got "
            f"{value!r}"
        )
    return value


class Dropout(Module):
    """In training, zero each element with probability p and scale the rest.

    The rest is multiplied by 1 / (1 - p), so that the mean stays as it is. In eval mode
    the input passes unchanged.

    Parameters
    ----------
    p : float in [0, 1]
        Probability of an element to be zeroed.
    seed : int or numpy.random.Generator, optional
        For the choice of elements.

    Attributes
    ----------
    generator : numpy.random.Generator
        Where the choices come from; its state is part of a run that is to be resumed.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> layer = Dropout(0.5, seed=0)
    >>> sorted(set(layer(np.ones(100)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(np.ones(2))
    array([1., 1.])
    """

    supports_masking = True

    _changeable: ClassVar = {
        "p": by(checks.probability),
        "generator": _generator,
    }

    @overload
    def __init__(self, p: float = ..., *, seed: Seed = ...) -> None: ...
    @overload
    def __init__(self, *, rate: float, seed: Seed = ...) -> None: ...
    def __init__(self, p: float = 0.5, *, seed: Seed = None) -> None:
        who = type(self).__name__
        self.p = p
        self.generator = checks.generator(who, seed)

    def forward(self, x: ArrayLike) -> Array:
        """Drop elements of `x`.

        Parameters
        ----------
        x : array_like, any shape
            float64 stays so; everything else becomes float32.

        Returns
        -------
        ndarray, shape of `x`
            In eval mode, `x` itself where it needed no conversion.

        Raises
        ------
        TypeError
            If `x` is not real numbers.
        """
        who = type(self).__name__
        x = checks.float_array(who, "x", x, checks.float_dtype(x))
        joint.check_rows(who, x.shape)
        if not self.training:
            self._keep(None)
            return x
        y = np.empty_like(x)  # a choice is drawn once nothing can fail any more
        # The kernel makes the same choice again for the same mask: it is not stored.
        mask = self._draw(x)
        self._drop(mask, x, y)
        self._keep((mask, x.shape, x.dtype))
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def _draw(self, x):
        """A choice of elements of `x`: seed, probability, place in the joint array."""
        seed = int(self.generator.integers(2**63))
        seed, place = joint.choices(type(self).__name__, seed, x)
        return seed, self.p, place

    @staticmethod
    def _drop(mask, x, y):
        seed, p, place = mask
        core.kernels(x.dtype).dropout(threads.for_kernel(), seed, p, x, y, *place)

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Gradient of the input: that of the output where nothing was dropped.

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
        mask, shape, dtype = context.saved
        dy = checks.float_array(who, "dy", dy, dtype)
        checks.same_shape(who, "dy", dy, "y", shape)
        dx = self._gradient(dy, mask)
        context.release()
        return dx

    def _gradient(self, dy, mask):
        """The input's gradient, from what forward kept of its choice."""
        dx = np.empty_like(dy)
        self._drop(mask, dy, dx)
        return dx

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return f"p={self.p}"
