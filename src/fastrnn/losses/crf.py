# SPDX-License-Identifier: BSD-3-Clause
"""`CRF`: a linear chain over the tags of a sequence, trained and decoded exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.losses.functions import REDUCTIONS
from fastrnn.nn import init
from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.functions import logsumexp
from fastrnn.util.lengths import lengths_array, steps_mask
from fastrnn.util.typing import Array, Seed

# Up to this difference between transitions a sum over tags is a product of matrices
# with the largest score taken out: exp(-300) is far from float64's smallest number
# and what is lost beside it is below exp(-400). Beyond (forbidden transitions) every
# sum has its own largest term.
_WIDEST = 300.0


class CRF(BatchFirst, Module):
    """Linear-chain conditional random field: the loss of a tagger, and its decoder.

    The score of tags y for a sequence is the sum of the emissions of its tags, of the
    transitions between neighbours, and of how it starts and ends. Its probability is
    exp(score) over the sum of that for all tag sequences.

    Parameters
    ----------
    num_tags : int
        Tags, K.
    batch_first : bool
        Arrays are (B, T, ...) instead of (T, B, ...).
    dtype : {"float32", "float64"}
        Type of parameters and gradients; sums are in float64 in any case.
    seed : int or numpy.random.Generator, optional
        For the initial parameters, U(-0.1, 0.1).

    Attributes
    ----------
    parameters : mapping
        ``start_transitions (K,)``, ``end_transitions (K,)`` and ``transitions (K, K)``
        from the row's tag to the column's. -inf or a large negative number forbids
        one.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    References
    ----------
    .. [1] J. Lafferty, A. McCallum, F. Pereira, "Conditional Random Fields:
       Probabilistic Models for Segmenting and Labeling Sequence Data", ICML 2001.
    .. [2] Z. Huang, W. Xu, K. Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging",
       arXiv:1508.01991, 2015.

    Examples
    --------
    >>> crf = CRF(3, seed=0)
    >>> emissions = np.random.default_rng(0).normal(size=(5, 2, 3))  # a tagger's output
    >>> tags = [[0, 1], [1, 1], [2, 0], [0, -1], [0, -1]]  # the second has 3 steps
    >>> loss = crf(emissions, tags, lengths=[5, 3])
    >>> crf.backward().shape
    (5, 2, 3)
    >>> best, scores = crf.decode(emissions, lengths=[5, 3])
    >>> best.T
    array([[ 2,  0,  1,  1,  0],
           [ 2,  2,  2, -1, -1]])
    """

    _changeable: ClassVar = {"batch_first": flag}

    def __init__(
        self,
        num_tags: int,
        *,
        batch_first: bool = False,
        dtype: str = "float32",
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        self.num_tags = K = checks.positive_int(who, "num_tags", num_tags)
        self.batch_first = batch_first
        rng = checks.generator(who, seed)
        shapes = {
            "start_transitions": (K,),
            "end_transitions": (K,),
            "transitions": (K, K),
        }
        self._declare(shapes, dtype)
        for view in self._param.values():
            init.uniform_(view, -0.1, 0.1, seed=rng)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return f"{self.num_tags}{', batch_first=True' if self.batch_first else ''}"

    # -- arguments --------------------------------------------------------------------

    def _emissions(self, who, emissions, lengths):
        """Emissions as float64 (T, B, K), zero in padding; lengths; the steps' mask."""
        x = checks.float_array(who, "emissions", emissions, self.dtype)
        axes = ("B", "T") if self.batch_first else ("T", "B")
        letters = (*axes, "num_tags")
        checks.shape(who, "emissions", x, letters, (None, None, self.num_tags))
        checks.not_empty(who, "emissions", x, letters)
        x = x.swapaxes(0, 1) if self.batch_first else x
        T, B = x.shape[:2]
        lengths = lengths_array(who, "lengths", lengths, B, T)
        inside = steps_mask(lengths, T)
        return np.where(inside[..., None], x, 0).astype(np.float64), lengths, inside

    def _tags(self, who, tags, inside):
        """Tags as (T, B), 0 in padding, where anything may stand."""
        tags = checks.integer_array(who, "tags", tags)
        axes = ("B", "T") if self.batch_first else ("T", "B")
        sizes = inside.shape[::-1] if self.batch_first else inside.shape
        checks.shape(who, "tags", tags, axes, sizes)
        tags = np.where(inside, tags.T if self.batch_first else tags, 0)
        return checks.index_array(who, "tags", tags, self.num_tags)

    def _scores(self):
        """Start, end and transition scores in float64."""
        return (
            self._param[name].astype(np.float64)
            for name in ("start_transitions", "end_transitions", "transitions")
        )

    # -- loss -------------------------------------------------------------------------

    def forward(
        self,
        emissions: ArrayLike,
        tags: ArrayLike,
        lengths: ArrayLike | None = None,
        reduction: str = "mean",
        weights: ArrayLike | None = None,
    ) -> float:
        """Negative log-likelihood of tags.

        Parameters
        ----------
        emissions : array_like, shape (T, B, num_tags)
            Score of each tag at each step, such as a linear head's output; (B, T,
            num_tags) with ``batch_first``.
        tags : array_like of int, shape (T, B)
            The right ones, in [0, num_tags); anything past a sequence's end. (B, T)
            with ``batch_first``.
        lengths : array_like of int, shape (B,), optional
            Steps of each sequence, in [1, T]. Default: T.
        reduction : {"mean", "sum"}
            Over the sequences.
        weights : array_like, shape (B,), optional
            What each sequence's loss is multiplied by; the mean is over B all the same.

        Returns
        -------
        float
            In nats.

        Raises
        ------
        ValueError
            If a shape disagrees, or a length or a tag is out of range.
        TypeError
            If an argument is of the wrong type.
        """
        who = type(self).__name__
        x, lengths, inside = self._emissions(who, emissions, lengths)
        tags = self._tags(who, tags, inside)
        checks.choice(who, "reduction", reduction, REDUCTIONS)
        B = x.shape[1]
        weight = np.full(B, 1 / B if reduction == "mean" else 1.0)
        if weights is not None:
            weights = checks.float_array(who, "weights", weights, "float64")
            checks.shape(who, "weights", weights, ("B",), (B,))
            weight *= weights
        start, end, moves = scores = tuple(self._scores())
        alpha = self._forward(x, inside, start, moves)
        log_z = logsumexp(alpha[-1] + end, 1)
        b, last = np.arange(B), tags[lengths - 1, np.arange(B)]
        path = np.take_along_axis(x, tags[..., None], 2)[..., 0].sum(0)
        steps = np.where(inside[1:], moves[tags[:-1], tags[1:]], 0).sum(0)
        losses = log_z - (start[tags[0]] + path + steps + end[last])
        kept = (x, tags, b, last, lengths, inside, alpha, log_z, scores, weight)
        self._keep(kept)
        return float((losses * weight).sum())

    if TYPE_CHECKING:
        __call__ = forward

    @staticmethod
    def _sum_over(a, moves):
        """log sum_i exp(a[b, i] + moves[i, j]): (B, K)."""
        if np.ptp(moves) <= _WIDEST:
            top, largest = a.max(1, keepdims=True), moves.max()
            with np.errstate(divide="ignore"):
                return np.log(np.exp(a - top) @ np.exp(moves - largest)) + top + largest
        return logsumexp(a[:, :, None] + moves, 1)

    def _forward(self, x, inside, start, moves):
        """alpha (T, B, K): log of the sum over all ways to a tag; stays at the end."""
        alpha = np.empty_like(x)
        alpha[0] = start + x[0]
        for t in range(1, len(x)):
            new = self._sum_over(alpha[t - 1], moves) + x[t]
            alpha[t] = np.where(inside[t][:, None], new, alpha[t - 1])
        return alpha

    def _backward(self, x, lengths, end, moves):
        """beta (T, B, K): log of the sum over all ways from each tag to the end."""
        beta = np.empty_like(x)
        beta[-1] = end
        back = np.ascontiguousarray(moves.T)
        for t in range(len(x) - 2, -1, -1):
            new = self._sum_over(x[t + 1] + beta[t + 1], back)
            beta[t] = np.where((t + 1 < lengths)[:, None], new, end)
        return beta

    def backward(
        self, dloss: ArrayLike = 1.0, *, context: Context | None = None
    ) -> Array:
        """Accumulate the gradients of all transitions and return the emissions'.

        Parameters
        ----------
        dloss : float
            Gradient of what is minimised with respect to the loss.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape of `emissions`
            Zero past a sequence's end.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        TypeError, ValueError
            If `dloss` is not a finite number.
        """
        who = f"{type(self).__name__}.backward"
        context = self._context(context)
        dloss = checks.finite(who, "dloss", dloss)
        x, tags, b, last, lengths, inside, alpha, log_z, scores, weight = context.saved
        _, end, moves = scores
        beta = self._backward(x, lengths, end, moves)
        weight = weight * dloss
        # Expected counts under the model, minus those of the right tags.
        dx = np.exp(alpha + beta - log_z[:, None])
        dx[~inside] = 0
        dx[(*np.nonzero(inside), tags[inside])] -= 1
        final = np.exp(alpha[-1] + end - log_z[:, None])
        final[b, last] -= 1
        dx *= weight[:, None]
        sums = {}
        if self._trainable:
            inner = inside[1:]
            pairs = np.nonzero(inner)[1]  # each one's sequence
            dmoves = self._expected(
                alpha[:-1][inner], (x + beta)[1:][inner], pairs, log_z, moves, weight
            )
            right = tags[:-1][inner], tags[1:][inner]
            np.subtract.at(dmoves, right, weight[pairs])
            sums["start_transitions"] = dx[0].sum(0)
            sums["end_transitions"] = weight @ final
            sums["transitions"] = dmoves
        sums = {name: part.astype(self.dtype) for name, part in sums.items()}
        dx = dx.astype(self.dtype)
        if self._was_batch_first(context):
            dx = np.ascontiguousarray(dx.swapaxes(0, 1))
        context.release()
        for name, part in sums.items():
            self._grad[name] += part
        return dx

    @staticmethod
    def _expected(before, after, b, log_z, moves, weight):
        """Sum over pairs of neighbours n of the probability of each transition (K, K).

        `before` is (N, K), alpha of the first, `after` x + beta of the second, `b` (N,)
        their sequence, which counts `weight` (B,).
        """
        if np.ptp(moves) <= _WIDEST:
            low, high = before.max(1), after.max(1)
            largest = moves.max()
            left = np.exp(before - low[:, None])
            left *= (weight[b] * np.exp(low + high + largest - log_z[b]))[:, None]
            right = np.exp(after - high[:, None])
            return (left.T @ right) * np.exp(moves - largest)
        total = np.zeros_like(moves)
        for n in range(0, len(b), 64):  # (64, K, K) at a time
            rows = slice(n, n + 64)
            pair = before[rows, :, None] + moves + after[rows, None, :]
            p = np.exp(pair - log_z[b[rows], None, None])
            total += np.tensordot(weight[b[rows]], p, 1)
        return total

    # -- decoding ---------------------------------------------------------------------

    def decode(
        self, emissions: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[list[Array], Array]:
        """The most probable tags (Viterbi's algorithm).

        Parameters
        ----------
        emissions, lengths
            As for `forward`.

        Returns
        -------
        tags : ndarray of int64, shape (T, B) or (B, T)
            -1 past a sequence's end; of equally good tags the first.
        scores : ndarray of float64, shape (B,)
            Of these tags, before normalisation.

        Raises
        ------
        ValueError, TypeError
            As `forward`.
        """
        who = f"{type(self).__name__}.decode"
        x, lengths, inside = self._emissions(who, emissions, lengths)
        start, end, moves = self._scores()
        T, B, K = x.shape
        best = start + x[0]
        came_from = np.empty((T, B, K), np.int64)
        for t in range(1, T):
            ways = best[:, :, None] + moves
            came_from[t] = ways.argmax(1)
            new = np.take_along_axis(ways, came_from[t][:, None], 1)[:, 0] + x[t]
            best = np.where(inside[t][:, None], new, best)
        best = best + end
        tags = np.full((T, B), -1, np.int64)
        b, tag = np.arange(B), best.argmax(1)
        for t in range(T - 1, -1, -1):
            tags[t] = np.where(inside[t], tag, -1)
            if t > 0:
                tag = np.where(inside[t], came_from[t, b, tag], tag)
        return (tags.T.copy() if self.batch_first else tags), best.max(1)

    def marginals(
        self, emissions: ArrayLike, lengths: ArrayLike | None = None
    ) -> Array:
        """Probability of each tag at each step, given the whole sequence.

        Parameters
        ----------
        emissions, lengths
            As for `forward`.

        Returns
        -------
        ndarray of float64, shape of `emissions`
            Rows sum to one; zero past a sequence's end.

        Raises
        ------
        ValueError, TypeError
            As `forward`.
        """
        who = f"{type(self).__name__}.marginals"
        x, lengths, inside = self._emissions(who, emissions, lengths)
        start, end, moves = self._scores()
        alpha = self._forward(x, inside, start, moves)
        log_z = logsumexp(alpha[-1] + end, 1)
        p = np.exp(alpha + self._backward(x, lengths, end, moves) - log_z[:, None])
        p[~inside] = 0
        return np.ascontiguousarray(p.swapaxes(0, 1)) if self.batch_first else p
