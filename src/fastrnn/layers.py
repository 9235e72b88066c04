# SPDX-License-Identifier: BSD-3-Clause
"""Layers without recurrence, and `Sequential`.

All take and return NumPy arrays. Data is converted to the layer's dtype where it can
be. What forward keeps for backward it keeps by reference: an input must not be written
to between the two.
"""

import numpy as np

from fastrnn import _check, _core, _threads, init
from fastrnn._pool import Pool
from fastrnn.module import Module

# No index is negative, so the kernel leaves none out.
_NO_PADDING = -1


class Linear(Module):
    """Affine map ``y = x W^T + b`` of the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Width of input and output.
    bias : bool
        Whether there is a ``b``.
    dtype : {"float32", "float64"}
        Type of parameters, input and output.
    seed : int or numpy.random.Generator, optional
        For the initial parameters, U(-k, k) with k = 1 / sqrt(in_features), the weight
        first.

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

    def __init__(
        self, in_features, out_features, bias=True, *, dtype="float32", seed=None
    ):
        who = type(self).__name__
        self.in_features = _check.positive_int(who, "in_features", in_features)
        self.out_features = _check.positive_int(who, "out_features", out_features)
        self.bias = _check.flag(who, "bias", bias)
        rng = _check.generator(who, seed)
        shapes = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        self._declare(shapes, dtype)
        for array in self._param.values():
            init.fan_in_uniform_(array, self.in_features, seed=rng)
        self._pool = Pool(self.dtype, most=2)  # one array forward, one backward

    def forward(self, x):
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
        x = _check.float_array(who, "x", x, self.dtype)
        _check.shape(who, "x", x, ("...", "in_features"), (None, self.in_features))
        y = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        kernels = _core.kernels(self.dtype)
        sizes = x.size // self.in_features, self.in_features, self.out_features
        work = self._pool.take(kernels.linear_work_size(False, *sizes))
        kernels.linear_forward(
            _threads.for_kernel(),
            *sizes,
            x,
            self._param["weight"],
            self._param.get("bias"),
            y,
            work,
        )
        self._pool.give(work)
        self._keep(x)
        return y

    def backward(self, dy, *, context=None):
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
        context = self._context(context)
        x = context.saved
        dy = _check.float_array(who, "dy", dy, self.dtype)
        _check.same_shape(who, "dy", dy, "y", (*x.shape[:-1], self.out_features))
        dx = np.empty_like(x)
        kernels = _core.kernels(self.dtype)
        sizes = x.size // self.in_features, self.in_features, self.out_features
        work = self._pool.take(kernels.linear_work_size(True, *sizes))
        kernels.linear_backward(
            _threads.for_kernel(),
            *sizes,
            x,
            self._param["weight"],
            dy,
            dx,
            self._grad["weight"],
            self._grad.get("bias"),
            work,
        )
        self._pool.give(work)
        context.release()
        return dx

    def extra_repr(self):
        """The arguments that `repr` shows."""
        bias = "" if self.bias else ", bias=False"
        return f"{self.in_features}, {self.out_features}{bias}"


class Embedding(Module):
    """Table of vectors, looked up by integer.

    Parameters
    ----------
    num_embeddings : int
        Number of rows of the table.
    embedding_dim : int
        Length of a vector.
    padding_idx : int, optional
        Row that starts as zero and gets no gradient; negative counts from the end.
    dtype : {"float32", "float64"}
        Type of the table.
    seed : int or numpy.random.Generator, optional
        For the initial table, N(0, 1).

    Attributes
    ----------
    parameters : mapping
        ``weight`` of shape (num_embeddings, embedding_dim).

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Examples
    --------
    >>> layer = Embedding(10, 4, seed=0)
    >>> layer([[1, 2, 3], [3, 2, 1]]).shape
    (2, 3, 4)
    """

    def __init__(
        self,
        num_embeddings,
        embedding_dim,
        padding_idx=None,
        *,
        dtype="float32",
        seed=None,
    ):
        who = type(self).__name__
        self.num_embeddings = _check.positive_int(who, "num_embeddings", num_embeddings)
        self.embedding_dim = _check.positive_int(who, "embedding_dim", embedding_dim)
        self.padding_idx = None
        if padding_idx is not None:
            n = self.num_embeddings
            index = _check.integer(who, "padding_idx", padding_idx)
            if not -n <= index < n:
                raise ValueError(
                    f"{who}: padding_idx must be in [-{n}, {n}), got {padding_idx!r}"
                )
            self.padding_idx = index % n
        rng = _check.generator(who, seed)
        self._declare({"weight": (self.num_embeddings, self.embedding_dim)}, dtype)
        init.normal_(self._param["weight"], seed=rng)
        if self.padding_idx is not None:
            self._param["weight"][self.padding_idx] = 0

    def forward(self, indices):
        """Look up vectors.

        Parameters
        ----------
        indices : array_like of int, any shape
            In [0, num_embeddings).

        Returns
        -------
        ndarray, shape (*indices.shape, embedding_dim)

        Raises
        ------
        ValueError
            If an index is out of range.
        TypeError
            If `indices` are not integers.
        """
        indices = _check.index_array(
            type(self).__name__, "indices", indices, self.num_embeddings
        )
        y = np.empty((*indices.shape, self.embedding_dim), self.dtype)
        _core.kernels(self.dtype).embedding_forward(
            _threads.for_kernel(),
            indices.size,
            *self._param["weight"].shape,
            indices,
            self._param["weight"],
            y,
        )
        # A copy: it is small beside y, and the caller may fill its array again.
        self._keep(indices.copy() if self.training else None)
        return y

    def backward(self, dy, *, context=None):
        """Accumulate the table's gradient; indices have none.

        Parameters
        ----------
        dy : array_like, shape (*indices.shape, embedding_dim)
            Gradient of the loss with respect to the output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dy` does not fit the output.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        indices = context.saved
        dy = _check.float_array(who, "dy", dy, self.dtype)
        _check.same_shape(who, "dy", dy, "y", (*indices.shape, self.embedding_dim))
        _core.kernels(self.dtype).embedding_backward(
            _threads.for_kernel(),
            indices.size,
            *self._grad["weight"].shape,
            indices,
            _NO_PADDING if self.padding_idx is None else self.padding_idx,
            dy,
            self._grad["weight"],
        )
        context.release()

    def extra_repr(self):
        """The arguments that `repr` shows."""
        padding = (
            "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        )
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


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

    def __init__(self, p=0.5, *, seed=None):
        who = type(self).__name__
        self.p = _check.probability(who, "p", p)
        self.generator = _check.generator(who, seed)

    def forward(self, x):
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
        x = _check.float_array(type(self).__name__, "x", x, _check.float_dtype(x))
        if not self.training:
            self._keep(None)
            return x
        # The kernel makes the same choice again for the same mask: it is not stored.
        mask = int(self.generator.integers(2**63)), self.p
        self._keep((mask, x.shape, x.dtype))
        return self._drop(mask, x)

    @staticmethod
    def _drop(mask, x):
        y = np.empty_like(x)
        _core.kernels(x.dtype.name).dropout(_threads.for_kernel(), *mask, x, y)
        return y

    def backward(self, dy, *, context=None):
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
        dy = _check.float_array(who, "dy", dy, dtype)
        _check.same_shape(who, "dy", dy, "y", shape)
        dx = self._drop(mask, dy)
        context.release()
        return dx

    def extra_repr(self):
        """The arguments that `repr` shows."""
        return f"p={self.p}"


class Sequential(Module):
    """Layers one after the other, named ``"0"``, ``"1"``, ...

    A recurrent layer starts from a zero state and hands on its output ``y`` without its
    final state.

    Parameters
    ----------
    *layers : Module
        The same layer may come more than once.

    Raises
    ------
    TypeError
        If one of them is not a Module.
    ValueError
        If they do not all have the same dtype.

    Examples
    --------
    >>> model = Sequential(Linear(3, 4, seed=0), Dropout(0.1, seed=1), Linear(4, 2))
    >>> model(np.ones((5, 3))).shape
    (5, 2)
    >>> model.backward(np.ones((5, 2))).shape
    (5, 3)
    """

    def __init__(self, *layers):
        who = type(self).__name__
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(
                    f"{who}: layer {i} must be a Module, got {type(layer).__name__}"
                )
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        self._leaves()  # raises when dtypes differ

    def __len__(self):
        return len(self._children)

    def __iter__(self):
        return iter(self._children.values())

    def __getitem__(self, index):
        return tuple(self)[index]

    def forward(self, x):
        """Run all layers in order.

        Parameters
        ----------
        x : array_like
            Input of the first layer.

        Returns
        -------
        ndarray
            Output of the last layer.

        Raises
        ------
        ValueError, TypeError
            What the layers raise.
        """
        calls = []
        for layer in self:
            y = layer(x)
            x = y[0] if isinstance(y, tuple) else y
            calls.append((layer, layer.context, layer.training))
        self._keep(calls)
        return x

    def backward(self, dy, *, context=None):
        """Accumulate all gradients and return the input's.

        Parameters
        ----------
        dy : array_like
            Gradient of the loss with respect to the last layer's output.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray or None
            Gradient of the first layer's input; None if that has none, as an
            `Embedding`'s.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, of all layers, or its context has
            been used.
        ValueError, TypeError
            What the layers raise.
        """
        context = self._context(context)
        for layer, kept, was_training in context.saved:
            if kept is not None:
                layer._context(kept)
            elif not was_training:
                raise RuntimeError(
                    f"{type(layer).__name__}: backward needs a forward in training mode"
                )
        for layer, kept, _ in reversed(context.saved):
            dx = layer.backward(dy, **({} if kept is None else {"context": kept}))
            dy = dx[0] if isinstance(dx, tuple) else dx
        context.release()
        return dy
