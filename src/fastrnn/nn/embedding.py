# SPDX-License-Identifier: BSD-3-Clause
"""`Embedding`: a table of vectors, looked up by integer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core, threads
from fastrnn.nn import schemes
from fastrnn.nn.context import Context
from fastrnn.nn.init import normal_, uniform_
from fastrnn.nn.module import Module
from fastrnn.nn.sparse import Table
from fastrnn.util import checks
from fastrnn.util.typing import Array, Mask, Seed

# No index is negative, so the kernel leaves none out.
_NO_PADDING = -1


def _small(array, seed):
    uniform_(array, -0.05, 0.05, seed=seed)


def _standard(array, seed):
    normal_(array, seed=seed)


_DEFAULT = "torch"
_SCHEMES = {"keras": {"weight": _small}, "torch": {"weight": _standard}}


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
    sparse : bool
        Whether to clear, clip and optimise only the rows used since `zero_grad`. The
        numbers are the same to the bit, with every optimiser. It pays for tables of
        which a step uses a few rows in a hundred or less. See the notes.
    mask_zero : bool
        Whether index 0 is padding: in a `Sequential` it masks its step, as `Masking`
        does. A model of one's own gives ``compute_mask(indices)`` to its layers and
        puts the mask of its output into ``self.output_mask``.
    init : {"torch", "keras"}, callable or mapping
        First values of ``weight``, in the forms that `LSTM` takes. "torch": N(0, 1),
        with which models of letters learn faster. "keras": U(-0.05, 0.05), which is
        better for many words of which each is rare.
    dtype : {"float32", "float64"}
        Type of the table.
    seed : int or numpy.random.Generator, optional
        For the first values.

    Attributes
    ----------
    parameters : mapping
        ``weight`` of shape (num_embeddings, embedding_dim).

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    An optimiser such as `Adam` moves rows whose gradient is zero, too. With `sparse`
    the steps that a row has missed are made up for, with their own learning rates and
    the very operations of the dense form, before anybody reads the row: `forward` for
    the rows that it looks up, `parameters`, saving, copying and an optimiser's
    ``state_dict`` for all rows.

    Steps of Adam with rows of 64 numbers, 512 of them used by an LSTM, took 0.28 of
    their time for a table of 100,000 rows, 0.7 for 20,000, as long for 10,000, and 1.2
    times as long for 1,000.

    Arrays from `parameters` and `flat_parameters`, here and in a module that contains
    this one, are always up to date: **while one of them, or a view of it, is alive, the
    optimiser steps all rows**, as without `sparse`. So is all of the gradient cleared,
    clipped and used from when `grads` or `flat_grads` was read until the first
    `zero_grad` at which no such array is alive. Fetch them when needed and do not keep
    them, or nothing is gained.

    Examples
    --------
    >>> layer = Embedding(10, 4, seed=0)
    >>> layer([[1, 2, 3], [3, 2, 1]]).shape
    (2, 3, 4)
    >>> words = Embedding(10_000, 256, sparse=True, seed=0)
    >>> optimizer = fastrnn.Adam(words)
    >>> words.backward(np.ones_like(words([7, 42])))
    >>> optimizer.step()  # reads and writes two rows
    >>> words.parameters["weight"].shape  # here the other rows make up for it
    (10000, 256)
    """

    _later_arguments = ("mask_zero",)
    _first_values = ("init",)

    @overload
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = ...,
        *,
        sparse: bool = ...,
        mask_zero: bool = ...,
        input_length: int = ...,
        input_shape: Sequence[int | None] = ...,
        init: schemes.Init = ...,
        dtype: str = ...,
        seed: Seed = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        sparse: bool = ...,
        mask_zero: bool = ...,
        input_length: int = ...,
        input_shape: Sequence[int | None] = ...,
        init: schemes.Init = ...,
        dtype: str = ...,
        seed: Seed = ...,
    ) -> None: ...
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
        mask_zero: bool = False,
        init: schemes.Init = _DEFAULT,
        dtype: str = "float32",
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        self.num_embeddings = checks.positive_int(who, "num_embeddings", num_embeddings)
        self.embedding_dim = checks.positive_int(who, "embedding_dim", embedding_dim)
        if padding_idx is not None:
            n = self.num_embeddings
            index = checks.integer(who, "padding_idx", padding_idx)
            if not -n <= index < n:
                raise ValueError(
                    f"{who}: padding_idx must be in [-{n}, {n}), got {padding_idx!r}"
                )
            padding_idx = index % n
        self.padding_idx = padding_idx
        self.sparse = checks.flag(who, "sparse", sparse)
        self.mask_zero = checks.flag(who, "mask_zero", mask_zero)
        rng = checks.generator(who, seed)
        self._declare({"weight": (self.num_embeddings, self.embedding_dim)}, dtype)
        schemes.fill(who, init, self._param, _SCHEMES, rng, default=_DEFAULT)
        if self.padding_idx is not None:
            self._param["weight"][self.padding_idx] = 0
        if self.sparse:
            self._table = Table(self.num_embeddings)

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
        """Where indices are not 0, with `mask_zero`; else `mask` as it is."""
        return np.asarray(x) != 0 if self.mask_zero else mask

    def forward(self, indices: ArrayLike) -> Array:
        """Look up vectors.

        Parameters
        ----------
        indices : array_like of int, any shape
            In [0, num_embeddings).

        Returns
        -------
        ndarray, shape indices.shape + (embedding_dim,)

        Raises
        ------
        ValueError
            If an index is out of range.
        TypeError
            If `indices` are not integers.
        """
        indices = checks.index_array(
            type(self).__name__, "indices", indices, self.num_embeddings
        )
        if self._table is not None:
            self._table.catch_up(self, indices)
        y = np.empty((*indices.shape, self.embedding_dim), self.dtype)
        core.kernels(self.dtype).embedding_forward(
            threads.for_kernel(),
            indices.size,
            *self._param["weight"].shape,
            indices,
            self._param["weight"],
            y,
        )
        # A copy: it is small beside y, and the caller may fill its array again.
        self._keep(indices.copy() if self.training else None)
        return y

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> None:
        """Accumulate the table's gradient; indices have none.

        Parameters
        ----------
        dy : array_like, shape indices.shape + (embedding_dim,)
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
        dy = checks.float_array(who, "dy", dy, self.dtype)
        checks.same_shape(who, "dy", dy, "y", (*indices.shape, self.embedding_dim))
        if not self._trainable:
            context.release()
            return
        n_threads = threads.for_kernel()
        core.prepare(n_threads)  # nothing can fail after that
        if self._table is not None:
            self._table.mark(indices)
        context.release()
        core.kernels(self.dtype).embedding_backward(
            n_threads,
            indices.size,
            *self._grad["weight"].shape,
            indices,
            _NO_PADDING if self.padding_idx is None else self.padding_idx,
            dy,
            self._grad["weight"],
        )

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        padding = (
            "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        )
        sparse = ", sparse=True" if self.sparse else ""
        mask = ", mask_zero=True" if self.mask_zero else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{sparse}{mask}"
