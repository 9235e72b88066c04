# SPDX-License-Identifier: BSD-3-Clause
"""Connectionist temporal classification: the loss, greedy and prefix-beam decoding.

A network gives a score for each label and for "blank" at each step.  An alignment is
one label or blank a step; it stands for the labels that are left when repeats are
merged and then blanks taken out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks
from fastrnn.util.functions import largest, log_normalised
from fastrnn.util.lengths import lengths_array, steps_mask
from fastrnn.util.typing import Array

REDUCTIONS = ("mean", "sum", "none")


def _log_probabilities(who, logits, input_lengths, blank):
    """Log-probabilities (T, B, C) in float64, lengths, blank, and the logits' dtype."""
    dtype = checks.float_dtype(logits)
    logits = checks.float_array(who, "logits", logits, dtype)
    letters = ("T", "B", "classes")
    checks.shape(who, "logits", logits, letters, (None, None, None))
    checks.not_empty(who, "logits", logits, letters)
    T, B, C = logits.shape
    lengths = lengths_array(who, "input_lengths", input_lengths, B, T)
    blank = checks.integer(who, "blank", blank)
    if not 0 <= blank < C:
        raise ValueError(f"{who}: blank must be in [0, {C}), got {blank}")
    # What stands in padding has no part in anything, NaN included.
    inside = steps_mask(lengths, T)[..., None]
    return log_normalised(np.where(inside, logits, 0)), lengths, blank, dtype


def _padded_targets(who, targets, target_lengths, B, C, blank):
    """Targets as (B, S), blank past each one's end, and their lengths."""
    targets = checks.integer_array(who, "targets", targets)
    if targets.ndim == 1:
        if target_lengths is None:
            raise ValueError(
                f"{who}: target_lengths must be given when targets are in one row"
            )
        lengths = lengths_array(
            who, "target_lengths", target_lengths, B, targets.size, 0
        )
        if lengths.sum() != targets.size:
            raise ValueError(
                f"{who}: target_lengths must sum to the {targets.size} targets, "
                f"got {lengths.sum()}"
            )
        inside = steps_mask(lengths, max(lengths.max(), 1)).T
        padded = np.full(inside.shape, blank, np.int64)
        padded[inside] = targets
    else:
        checks.shape(who, "targets", targets, ("B", "S"), (B, None))
        S = targets.shape[1]
        lengths = lengths_array(who, "target_lengths", target_lengths, B, S, 0)
        inside = steps_mask(lengths, max(S, 1)).T
        padded = np.full(inside.shape, blank, np.int64)
        padded[:, :S] = np.where(inside[:, :S], targets, blank)
    given = padded[inside]
    wrong = given[(given < 0) | (given >= C) | (given == blank)]
    if wrong.size:
        raise ValueError(
            f"{who}: targets must be in [0, classes) = [0, {C}) and not blank = "
            f"{blank}, got {wrong[0]}"
        )
    return padded, lengths


def ctc_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike | None = None,
    target_lengths: ArrayLike | None = None,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[Any, Array]:
    """Negative log-likelihood of label sequences, over all their alignments.

    Parameters
    ----------
    logits : array_like, shape (T, B, classes)
        Scores before the softmax. float64 stays so, everything else becomes float32.
    targets : array_like of int, shape (B, S) or (sum of target_lengths,)
        The right labels, padded with anything or all in one row; none is `blank`.
    input_lengths : array_like of int, shape (B,), optional
        Steps of each sequence, in [1, T]. Default: T.
    target_lengths : array_like of int, shape (B,), optional
        Labels of each sequence, 0 allowed. Default: S.
    blank : int
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}
        "mean" divides each loss by its number of labels (at least 1), then averages
        over the batch, as PyTorch does. "none" gives each sequence's loss, and the
        gradient of their sum.
    zero_infinity : bool
        Whether sequences too short for their labels count as a loss of zero without
        gradient. If not, their loss is infinite and their gradient NaN.

    Returns
    -------
    loss : float, or ndarray of float64, shape (B,), for "none"
        In nats, summed in float64.
    dlogits : ndarray, shape of `logits`
        Gradient of `loss`; zero past a sequence's end.

    Raises
    ------
    ValueError
        If a shape disagrees, or a length, label, `blank` or `reduction` is out of
        range.
    TypeError
        If `logits` are not real numbers, or labels and lengths not integers.

    Notes
    -----
    The forward and backward variables of [1]_ over the labels with blanks between, in
    logarithms and all sequences at once. The gradient is
    :math:`\\mathrm{softmax}(z)_{tk}` minus the probability that an alignment of the
    right labels is at label k at step t.

    References
    ----------
    .. [1] A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist Temporal
       Classification", ICML 2006.

    Examples
    --------
    >>> logits = np.zeros((4, 1, 3))  # all 81 alignments equally likely
    >>> loss, dlogits = ctc_loss(logits, [[1, 2]])  # 15 of them stand for 1, 2
    >>> round(2 * loss, 6), round(float(np.log(81 / 15)), 6)
    (1.686399, 1.686399)
    """
    who = "ctc_loss"
    log_p, input_lengths, blank, dtype = _log_probabilities(
        who, logits, input_lengths, blank
    )
    T, B, C = log_p.shape
    targets, target_lengths = _padded_targets(who, targets, target_lengths, B, C, blank)
    checks.choice(who, "reduction", reduction, REDUCTIONS)
    zero_infinity = checks.flag(who, "zero_infinity", zero_infinity)

    S = targets.shape[1]
    labels = np.full((B, 2 * S + 1), blank)  # blanks between and around
    labels[:, 1::2] = targets
    states = np.arange(2 * S + 1) <= 2 * target_lengths[:, None]
    # From two labels back: only to a label that is not a blank or a repeat.
    skips = np.zeros(labels.shape, bool)
    skips[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    emitted = np.take_along_axis(log_p, labels[None], 2)  # (T, B, 2 S + 1)
    emitted[:, ~states] = -np.inf
    alpha, beta = _alpha(emitted, skips), _beta(emitted, skips, states, input_lengths)

    b = np.arange(B)
    ends = alpha[input_lengths - 1, b]
    before_last = np.where(
        target_lengths > 0, ends[b, np.maximum(2 * target_lengths - 1, 0)], -np.inf
    )
    losses = -np.logaddexp(ends[b, 2 * target_lengths], before_last)
    impossible = np.isposinf(losses)
    weight = np.ones(B)
    if reduction == "mean":
        weight = 1 / (B * np.maximum(target_lengths, 1))

    # Occupancy of each label: exp(alpha + beta + loss), summed over its places.
    with np.errstate(invalid="ignore"):  # inf - inf where no alignment exists
        places = np.exp(alpha + beta + losses[:, None])
    rows = (np.arange(T)[:, None] * B + b)[..., None] * C + labels
    occupied = np.bincount(rows.reshape(-1), places.reshape(-1), T * B * C)
    dlogits = np.exp(log_p) - occupied.reshape(T, B, C)
    dlogits *= weight[:, None]
    dlogits[:, impossible] = 0 if zero_infinity else np.nan
    if zero_infinity:
        losses = np.where(impossible, 0, losses)
    dlogits[~steps_mask(input_lengths, T)] = 0
    dlogits = dlogits.astype(dtype)
    if reduction == "none":
        return losses, dlogits
    return float((losses * weight).sum()), dlogits


def _sum_of_three(stay, step, skip):
    """logsumexp of three arrays, without one array of them all."""
    top = np.maximum(np.maximum(stay, step), skip)
    top[top == -np.inf] = 0
    total = np.exp(stay - top)
    total += np.exp(step - top)
    total += np.exp(skip - top)
    with np.errstate(divide="ignore"):
        return np.log(total, out=total) + top


def _alpha(emitted, skips):
    """log of the sum over alignments up to step t that are at state s then."""
    T, B, n = emitted.shape
    alpha = np.empty_like(emitted)
    alpha[0] = -np.inf
    alpha[0, :, :2] = emitted[0, :, :2]
    # Two columns of -inf before the first state, so that shifts need no cases.
    wide = np.full((B, n + 2), -np.inf)
    for t in range(1, T):
        wide[:, 2:] = alpha[t - 1]
        skip = np.where(skips, wide[:, :-2], -np.inf)
        alpha[t] = _sum_of_three(wide[:, 2:], wide[:, 1:-1], skip) + emitted[t]
    return alpha


def _beta(emitted, skips, states, lengths):
    """log of the sum over alignments after step t, from state s at t to the end."""
    T, B, n = emitted.shape
    beta = np.empty_like(emitted)
    last = states.sum(1)[:, None] - 1
    index = np.arange(n)
    final = np.where((index == last) | (index == last - 1), 0, -np.inf)
    beta[-1] = final
    wide = np.full((B, n + 2), -np.inf)
    may_skip = np.zeros((B, n + 2), bool)
    may_skip[:, :n] = skips
    for t in range(T - 2, -1, -1):
        wide[:, :n] = beta[t + 1] + emitted[t + 1]
        skip = np.where(may_skip[:, 2:], wide[:, 2:], -np.inf)
        new = _sum_of_three(wide[:, :n], wide[:, 1:-1], skip)
        beta[t] = np.where((t + 1 < lengths)[:, None], new, final)
    return beta


def ctc_greedy_decode(
    logits: ArrayLike, input_lengths: ArrayLike | None = None, blank: int = 0
) -> list[Array]:
    """Labels of the likeliest alignment: the best class of each step, collapsed.

    Parameters
    ----------
    logits : array_like, shape (T, B, classes)
        Scores before the softmax.
    input_lengths : array_like of int, shape (B,), optional
        Steps of each sequence. Default: T.
    blank : int
        The class that stands for no label.

    Returns
    -------
    list of ndarray of int64
        Labels of each sequence.

    Raises
    ------
    ValueError, TypeError
        As `ctc_loss`.

    Examples
    --------
    >>> steps = [1, 1, 0, 1, 2, 2]
    >>> ctc_greedy_decode(np.eye(3)[steps][:, None])
    [array([1, 1, 2])]
    """
    log_p, lengths, blank, _ = _log_probabilities(
        "ctc_greedy_decode", logits, input_lengths, blank
    )
    best = log_p.argmax(2)
    stays = steps_mask(lengths, len(best)) & (best != blank)
    stays[1:] &= best[1:] != best[:-1]
    counts = stays.sum(0)
    return np.split(best.T[stays.T], np.cumsum(counts)[:-1])


def ctc_beam_search(
    logits: ArrayLike,
    input_lengths: ArrayLike | None = None,
    blank: int = 0,
    beam_width: int = 16,
) -> tuple[list[Array], Array]:
    """The likeliest labels, their alignments summed (prefix beam search).

    Parameters
    ----------
    logits : array_like, shape (T, B, classes)
        Scores before the softmax.
    input_lengths : array_like of int, shape (B,), optional
        Steps of each sequence. Default: T.
    blank : int
        The class that stands for no label.
    beam_width : int
        Prefixes kept at each step. With all that there are, the result is exact.

    Returns
    -------
    labels : list of ndarray of int64
        Labels of each sequence.
    log_probabilities : ndarray of float64, shape (B,)
        Of the labels, over the alignments that the search has seen: at most the true
        one.

    Raises
    ------
    ValueError, TypeError
        As `ctc_loss`, and if `beam_width` is not a positive integer.

    Notes
    -----
    Prefixes are told apart by a 64-bit hash of their labels; that two in one beam get
    the same has a chance of about ``beam_width**2 / 2**65`` a step.

    References
    ----------
    .. [1] A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist Temporal
       Classification", ICML 2006, section 3.2.
    .. [2] A. Hannun, A. Maas, D. Jurafsky, A. Ng, "First-Pass Large Vocabulary
       Continuous Speech Recognition using Bi-Directional Recurrent DNNs",
       arXiv:1408.2873, 2014.

    Examples
    --------
    The likeliest alignment is all blank, yet label 1 is likelier than nothing:

    >>> logits = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])
    >>> ctc_greedy_decode(logits)
    [array([], dtype=int64)]
    >>> labels, log_p = ctc_beam_search(logits)
    >>> labels, np.exp(log_p).round(2)
    ([array([1])], array([0.64]))
    """
    who = "ctc_beam_search"
    log_p, lengths, blank, _ = _log_probabilities(who, logits, input_lengths, blank)
    W = checks.positive_int(who, "beam_width", beam_width)
    T, B, C = log_p.shape
    b, beams = np.arange(B)[:, None], np.arange(W)
    # Of each prefix: its log-probability with alignments that end in blank and in its
    # last label, that label (-1: none), its hash and its parent's.
    ends_blank = np.full((B, W), -np.inf)
    ends_blank[:, 0] = 0
    ends_label = np.full((B, W), -np.inf)
    label = np.full((B, W), -1)
    identity = np.zeros((B, W), np.uint64)
    parent = np.full((B, W), np.uint64(2**64 - 1))
    came_from = np.tile(beams, (T, B, 1))
    added = np.full((T, B, W), -1)
    for t in range(T):
        running = (t < lengths)[:, None]
        p = log_p[t]
        total = np.logaddexp(ends_blank, ends_label)
        stay_blank = total + p[:, [blank]]
        at_label = np.take_along_axis(p, np.maximum(label, 0), 1)
        stay_label = np.where(label < 0, -np.inf, ends_label + at_label)
        # A longer prefix; a repeat of the last label needs a blank before it.
        repeats = label[..., None] == np.arange(C)
        longer = np.where(repeats, ends_blank[..., None], total[..., None]) + p[:, None]
        longer[..., blank] = -np.inf
        # One that is in the beam already takes what would have become a copy of it.
        b_, into, source = np.nonzero(parent[:, :, None] == identity[:, None, :])
        lives = np.isfinite(total[b_, into]) & np.isfinite(total[b_, source])
        b_, into, source = b_[lives], into[lives], source[lives]
        which = b_, source, label[b_, into]
        stay_label[b_, into] = np.logaddexp(stay_label[b_, into], longer[which])
        longer[which] = -np.inf

        scores = np.concatenate(
            (np.logaddexp(stay_blank, stay_label), longer.reshape(B, W * C)), axis=1
        )
        chosen = largest(scores, W)
        grows = chosen >= W
        source = np.where(grows, (chosen - W) // C, chosen)
        new = np.where(grows, (chosen - W) % C, -1)
        grown = np.take_along_axis(scores, chosen, 1)
        old = identity[b, source]
        update = {
            "ends_blank": np.where(grows, -np.inf, stay_blank[b, source]),
            "ends_label": np.where(grows, grown, stay_label[b, source]),
            "label": np.where(grows, new, label[b, source]),
            "parent": np.where(grows, old, parent[b, source]),
            "identity": np.where(grows, _hash(old, new), old),
        }
        ends_blank = np.where(running, update["ends_blank"], ends_blank)
        ends_label = np.where(running, update["ends_label"], ends_label)
        label = np.where(running, update["label"], label)
        parent = np.where(running, update["parent"], parent)
        identity = np.where(running, update["identity"], identity)
        came_from[t] = np.where(running, source, beams)
        added[t] = np.where(running, new, -1)
    total = np.logaddexp(ends_blank, ends_label)
    best = total.argmax(1)
    score = total[b[:, 0], best]
    labels = np.empty((T, B), np.int64)
    for t in range(T - 1, -1, -1):
        labels[t] = added[t, b[:, 0], best]
        best = came_from[t, b[:, 0], best]
    some = labels >= 0
    return np.split(labels.T[some.T], np.cumsum(some.sum(0))[:-1]), score


def _hash(identity, label):
    """Hash of a prefix with one label more: splitmix64's finaliser."""
    h = identity * np.uint64(0x9E3779B97F4A7C15) + label.astype(np.uint64)
    h += np.uint64(0x632BE59BD9B4E019)
    h ^= h >> np.uint64(30)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
