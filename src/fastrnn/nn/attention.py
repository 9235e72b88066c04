# SPDX-License-Identifier: BSD-3-Clause
"""`Attention`: weighted means of an encoder's outputs, after Luong and Bahdanau."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import init
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.layers import Linear
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.lengths import lengths_array, steps_mask
from fastrnn.util.typing import Array, Seed

KINDS = ("dot", "general", "additive")


class Memory:
    """What is attended to, made ready once for any number of queries.

    Attributes
    ----------
    keys : ndarray, shape (B, S, key_size)
        Zero where the mask is False: what stands in padding has no part in anything.
    mask : ndarray of bool, shape (B, 1, S), or None
    projected : ndarray, shape (B, S, units), or None
        The keys' part of an additive score.
    """

    __slots__ = ("keys", "mask", "projected")


class Hidden:
    """The largest array of an additive score, tanh(W q + U k), shape (B, T, S, units).

    Backward needs another of its size, and takes this one: should it fail later on, the
    next one computes the tanh again.
    """

    def __init__(self, q, projected):
        self._of = q[:, :, None], projected[:, None]
        self.array = self._of[0] + self._of[1]
        np.tanh(self.array, out=self.array)
        self._is_tanh = True

    def tanh(self):
        """What it is."""
        if not self._is_tanh:
            np.add(*self._of, out=self.array)
            np.tanh(self.array, out=self.array)
            self._is_tanh = True
        return self.array

    def d_sum(self, ds, v):
        """Gradient of what tanh is of, in the same memory, from that of the scores."""
        d = self.tanh()
        self._is_tanh = False
        np.square(d, out=d)
        np.subtract(1, d, out=d)
        d *= v
        d *= ds[..., None]
        return d


class Attention(BatchFirst, Module):
    """Weights over a sequence of keys for each query, and the keys' weighted mean.

    Parameters
    ----------
    query_size, key_size : int
        Features of a query (a decoder's output) and of a key (an encoder's).
        `key_size` is `query_size` if not given.
    kind : {"general", "dot", "additive"}
        How a query q and a key k are scored: Luong's ``q^T k`` and ``q^T W k``, or
        Bahdanau's ``v^T tanh(W q + U k)``.
    units : int, optional
        Length of v for the additive kind; `query_size` if not given.
    batch_first : bool
        Arrays are (B, T, features) instead of (T, B, features).
    dtype : {"float32", "float64"}
        Type of parameters, input and output.
    seed : int or numpy.random.Generator, optional
        For the first values: of ``v`` U(-k, k) with k = 1 / sqrt(units), of the rest
        those of `Linear`.

    Attributes
    ----------
    parameters : mapping
        None for "dot"; ``query.weight (key_size, query_size)`` for "general"; ``v
        (units,)``, ``query.weight (units, query_size)`` and ``key.weight (units,
        key_size)`` for "additive".

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above, or sizes differ for "dot".

    Notes
    -----
    Positions that `lengths` or `mask` leave out have a weight of exactly zero and get
    no gradient, whatever they hold, NaN included. A query that nothing is left for is
    an error: there is no mean of nothing.

    The additive kind holds an array of shape (B, T, S, units) from forward to backward.

    References
    ----------
    .. [1] D. Bahdanau, K. Cho, Y. Bengio, "Neural Machine Translation by Jointly
       Learning to Align and Translate", ICLR 2015.
    .. [2] M. Luong, H. Pham, C. Manning, "Effective Approaches to Attention-based
       Neural Machine Translation", EMNLP 2015.

    Examples
    --------
    >>> attention = Attention(4, 6, "additive", seed=0)
    >>> keys = np.random.default_rng(0).normal(size=(5, 2, 6))
    >>> context, weights = attention(np.ones((3, 2, 4)), keys, lengths=[5, 2])
    >>> context.shape, weights.shape
    ((3, 2, 6), (3, 2, 5))
    >>> weights[0, 1].round(2)
    array([0.34, 0.66, 0.  , 0.  , 0.  ], dtype=float32)
    >>> dquery, dkeys = attention.backward(np.ones_like(context))
    >>> dkeys[:, 1, 0].round(2)
    array([1.06, 1.73, 0.  , 0.  , 0.  ], dtype=float32)
    """

    _changeable: ClassVar = {"batch_first": flag}
    _child_names = ("query", "key")

    def __init__(
        self,
        query_size: int,
        key_size: int | None = None,
        kind: str = "general",
        units: int | None = None,
        *,
        batch_first: bool = False,
        dtype: str = "float32",
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        self.query_size = checks.positive_int(who, "query_size", query_size)
        key_size = query_size if key_size is None else key_size
        self.key_size = checks.positive_int(who, "key_size", key_size)
        self.kind = checks.choice(who, "kind", kind, KINDS)
        if units is not None and kind != "additive":
            raise ValueError(
                f"{who}: units must be None unless kind is 'additive', got {units!r}"
            )
        self.batch_first = batch_first
        self._dtype = checks.dtype_name(who, dtype)
        rng = checks.generator(who, seed)
        if kind == "dot" and self.query_size != self.key_size:
            raise ValueError(
                f"{who}: key_size must be query_size = {query_size} for kind 'dot', "
                f"got {key_size}"
            )
        if kind != "additive":
            self.units = None
        if kind == "general":
            self.query = Linear(query_size, key_size, False, dtype=dtype, seed=rng)
        if kind == "additive":
            units = query_size if units is None else units
            self.units = checks.positive_int(who, "units", units)
            self._declare({"v": (self.units,)}, dtype)
            init.fan_in_uniform_(self._param["v"], self.units, seed=rng)
            self.query = Linear(query_size, units, False, dtype=dtype, seed=rng)
            self.key = Linear(key_size, units, False, dtype=dtype, seed=rng)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        units = f", units={self.units}" if self.kind == "additive" else ""
        first = ", batch_first=True" if self.batch_first else ""
        return f"{self.query_size}, {self.key_size}, {self.kind!r}{units}{first}"

    # -- forward ----------------------------------------------------------------------

    def forward(
        self,
        query: ArrayLike,
        keys: ArrayLike,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Attend to `keys` from each query.

        Parameters
        ----------
        query : array_like, shape (T, B, query_size) or (B, query_size)
            One query for each step, or a single one; (B, T, query_size) with
            ``batch_first``.
        keys : array_like, shape (S, B, key_size)
            (B, S, key_size) with ``batch_first``.
        lengths : array_like of int, shape (B,), optional
            Keys that count of each sequence, from the first on, in [1, S].
        mask : array_like of bool, shape (S, B), optional
            True for a key that counts; (B, S) with ``batch_first``. With `lengths`,
            both must hold.

        Returns
        -------
        context : ndarray, shape (T, B, key_size) or (B, key_size)
            Weighted means of the keys, laid out like `query`.
        weights : ndarray, shape (T, B, S) or (B, S)
            They sum to one over S. Read-only in training mode: backward needs them.

        Raises
        ------
        ValueError
            If a shape disagrees, a length is out of range, or no key of a sequence
            counts.
        TypeError
            If `query` or `keys` are not real numbers, or `mask` is not bool.
        """
        who = type(self).__name__
        query = checks.float_array(who, "query", query, self.dtype)
        keys = checks.float_array(who, "keys", keys, self.dtype)
        outer = ("B", "S") if self.batch_first else ("S", "B")
        checks.shape(
            who, "keys", keys, (*outer, "key_size"), (None, None, self.key_size)
        )
        checks.not_empty(who, "keys", keys, (*outer, "key_size"))
        keys = keys if self.batch_first else keys.swapaxes(0, 1)
        B, S = keys.shape[:2]
        single = query.ndim == 2
        if single:
            checks.shape(who, "query", query, ("B", "query_size"), (B, self.query_size))
            query = query[:, None] if self.batch_first else query[None]
        letters = ("B", "T") if self.batch_first else ("T", "B")
        sizes = (B, None) if self.batch_first else (None, B)
        letters, sizes = (*letters, "query_size"), (*sizes, self.query_size)
        checks.shape(who, "query", query, letters, sizes)
        allowed = self._allowed(who, lengths, mask, B, S)
        memory, key_context = self._remember(keys, allowed)
        context, weights, saved = self._attend(query, memory)
        self._keep((memory, key_context, weights, saved, single))
        if not self.batch_first:
            weights = weights.swapaxes(0, 1)
        if self.training:
            weights.flags.writeable = False
        if single:
            step = (slice(None), 0) if self.batch_first else 0
            context, weights = context[step], weights[step]
        return context, weights

    if TYPE_CHECKING:
        __call__ = forward

    def _allowed(self, who, lengths, mask, B, S):
        """Which keys count, (B, S), or None where all do."""
        allowed = None
        if lengths is not None:
            lengths = lengths_array(who, "lengths", lengths, B, S)
            allowed = steps_mask(lengths, S).T
        if mask is not None:
            mask = checks.as_array(who, "mask", mask)
            if mask.dtype != bool:
                raise TypeError(f"{who}: mask must be bool, got dtype {mask.dtype}")
            letters, sizes = (
                (("B", "S"), (B, S)) if self.batch_first else (("S", "B"), (S, B))
            )
            checks.shape(who, "mask", mask, letters, sizes)
            mask = mask if self.batch_first else mask.T
            allowed = mask if allowed is None else allowed & mask
            nothing = np.flatnonzero(~allowed.any(axis=1))
            if nothing.size:
                raise ValueError(
                    f"{who}: mask must leave a key for every sequence, got none for "
                    f"b = {nothing[0]}"
                )
        return allowed

    def _remember(self, keys, allowed):
        """`Memory` of (B, S, key_size) keys, and the context of their projection."""
        memory = Memory()
        memory.mask, memory.projected = None, None
        if allowed is not None and not allowed.all():
            memory.mask = allowed[:, None]
            keys = np.where(allowed[:, :, None], keys, 0)
        memory.keys = keys
        if self.kind != "additive":
            return memory, None
        memory.projected = self.key(keys)
        return memory, self.key.context

    def _attend(self, query, memory):
        """Context in the layer's layout, weights (B, T, S), and what backward needs."""
        q = query if self.kind == "dot" else self.query(query)
        query_context = None if self.kind == "dot" else self.query.context
        q = q if self.batch_first else q.swapaxes(0, 1)  # (B, T, ...)
        hidden = None
        if self.kind == "additive":
            hidden = Hidden(q, memory.projected)
            scores = hidden.array @ self._param["v"]
        else:
            scores = q @ memory.keys.swapaxes(1, 2)
        if memory.mask is not None:
            scores = np.where(memory.mask, scores, -np.inf)
        scores -= scores.max(axis=2, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(axis=2, keepdims=True)
        context = np.empty((*query.shape[:2], self.key_size), self.dtype)
        batch = context if self.batch_first else context.swapaxes(0, 1)
        np.matmul(weights, memory.keys, out=batch)
        return context, weights, (q, query_context, hidden)

    # -- backward ---------------------------------------------------------------------

    def backward(
        self,
        dcontext: ArrayLike,
        dweights: ArrayLike | None = None,
        *,
        context: Context | None = None,
    ) -> tuple[Array, Array]:
        """Accumulate the parameters' gradients and return those of queries and keys.

        Parameters
        ----------
        dcontext : array_like, shape of the context
            Gradient of the loss with respect to it.
        dweights : array_like, shape of the weights, optional
            Gradient with respect to them; zero if not given.
        context : Context, optional
            What the forward in question left in ``layer.context``. Default: the last.

        Returns
        -------
        dquery : ndarray, shape of `query`
        dkeys : ndarray, shape of `keys`
            Zero at keys that do not count.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If a gradient does not fit.
        """
        who = f"{type(self).__name__}.backward"
        kept = self._context(context)
        memory, _, weights, _, single = kept.saved
        (B, T, S), first = weights.shape, self._was_batch_first(kept)
        shape = B, T, self.key_size
        dcontext = self._gradient(who, "dcontext", dcontext, shape, single, first)
        # dw, then through the softmax: ds = w (dw - sum(w dw)).
        ds = dcontext @ memory.keys.swapaxes(1, 2)
        if dweights is not None:
            ds += self._gradient(who, "dweights", dweights, (B, T, S), single, first)
        if memory.mask is not None:
            ds = np.where(memory.mask, ds, 0)  # dweights may hold anything there
        ds -= (weights * ds).sum(axis=2, keepdims=True)
        ds *= weights
        with Attempt():
            return self._backward(kept, dcontext, ds)

    def _backward(self, kept, dcontext, ds):
        """`backward` from the gradients of contexts and scores, (B, T, ...)."""
        memory, key_context, weights, (q, query_context, hidden), single = kept.saved
        (B, _, S), first = weights.shape, self._was_batch_first(kept)
        dkeys = np.empty((*((B, S) if first else (S, B)), self.key_size), ds.dtype)
        dk = dkeys if first else dkeys.swapaxes(0, 1)
        np.matmul(weights.swapaxes(1, 2), dcontext, out=dk)
        kept.release()
        if self.kind == "additive":
            if self._trainable:
                self._grad["v"] += np.tensordot(ds, hidden.tanh(), 3)
            d_sum = hidden.d_sum(ds, self._param["v"])
            dq, dprojected = d_sum.sum(axis=2), d_sum.sum(axis=1)
            dk += self.key.backward(dprojected, context=key_context)
        else:
            dq = ds @ memory.keys
            dk += ds.swapaxes(1, 2) @ q
        if memory.mask is not None:
            dk[~memory.mask[:, 0]] = 0
        dq = np.ascontiguousarray(dq if first else dq.swapaxes(0, 1))
        if self.kind != "dot":
            dq = self.query.backward(dq, context=query_context)
        if single:
            dq = dq[:, 0] if first else dq[0]
        return dq, dkeys

    def _gradient(self, who, name, value, shape, single, batch_first):
        """A gradient as (B, T, ...), refused unless it has the shape of the result."""
        array = checks.float_array(who, name, value, self.dtype)
        B, T, width = shape
        expected = shape if batch_first else (T, B, width)
        expected = (B, width) if single else expected
        checks.same_shape(who, name, array, name[1:], expected)
        if single:
            return array[:, None]
        return array if batch_first else array.swapaxes(0, 1)
