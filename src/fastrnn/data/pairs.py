# SPDX-License-Identifier: BSD-3-Clause
"""`Pairs`: samples for models that write sequences, taught with the right tokens.

A sequence is as long as it is: batches are of like lengths, and what is padded has
targets that do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.samples import Samples, listed
from fastrnn.data.sequences import pad_sequences
from fastrnn.util import checks
from fastrnn.util.typing import Array

IGNORED = -100  # what `cross_entropy` does not count
# Batches that are sorted by length together: see `BucketSampler`.
_BUCKET = 50


def teach(prompts, sequences, end=None, ignore_index=IGNORED):
    """Inputs and targets (B, T): each right token is the input of the next step.

    Parameters
    ----------
    prompts : list of ndarray of int64, shape (p,)
        What each sequence follows, at least one token; it is not a target.
    sequences : list of ndarray of int64, shape (n,)
    end : int, optional
        Last target of every sequence.
    ignore_index : int
        Target within a prompt and past a sequence's end.

    Returns
    -------
    inputs, targets : ndarray of int64, shape (B, T)
        Inputs past a sequence's end are its first one.

    Examples
    --------
    >>> inputs, targets = teach([np.array([7, 1]), np.array([7])], [[5, 6], [8]], end=2)
    >>> inputs.tolist(), targets.tolist()
    ([[7, 1, 5, 6], [7, 8, 7, 7]], [[-100, 5, 6, 2], [8, 2, -100, -100]])
    """
    tail = [] if end is None else [end]
    lengths = [
        len(prompt) + len(sequence) + len(tail) - 1
        for prompt, sequence in zip(prompts, sequences, strict=True)
    ]
    shape = len(lengths), max(lengths)
    inputs, targets = np.empty(shape, np.int64), np.full(shape, ignore_index, np.int64)
    for b, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
        whole = np.concatenate((prompt, sequence, tail)).astype(np.int64)
        first, n = len(prompt) - 1, lengths[b]
        inputs[b, :n], inputs[b, n:] = whole[:-1], whole[0]
        targets[b, first:n] = whole[first + 1 :]
    return inputs, targets


def teacher_forcing(
    sequences: Sequence[ArrayLike] | ArrayLike,
    start: int,
    end: int | None = None,
    ignore_index: int = -100,
    *,
    batch_first: bool = True,
) -> tuple[Array, Array]:
    """Inputs and targets that train a model to write given sequences.

    At each step the input is the right token of the step before, whatever the model
    would have written.

    Parameters
    ----------
    sequences : sequence of array_like of int, each of shape (n,)
        What to write, without start and end; n may be 0 with an `end`.
    start : int
        First input of every sequence.
    end : int, optional
        Last target of every sequence. Default: none.
    ignore_index : int
        Target past a sequence's end, for `cross_entropy`.
    batch_first : bool
        False for arrays (T, B), as a layer that is called by itself takes them.

    Returns
    -------
    inputs, targets : ndarray of int64, shape (B, T)
        As a `Generator` and an `EncoderDecoder` take them. T is the greatest length,
        with the end. Inputs past a sequence's end are `start`.

    Raises
    ------
    ValueError
        If there is no sequence, or none has a step.
    TypeError
        If one is not integers.

    References
    ----------
    .. [1] R. Williams, D. Zipser, "A Learning Algorithm for Continually Running Fully
       Recurrent Neural Networks", Neural Computation 1(2), 1989.

    Examples
    --------
    >>> inputs, targets = teacher_forcing([[5, 6, 7], [8]], start=1, end=2)
    >>> inputs.tolist(), targets.tolist()
    ([[1, 5, 6, 7], [1, 8, 1, 1]], [[5, 6, 7, 2], [8, 2, -100, -100]])
    """
    who = "teacher_forcing"
    batch_first = checks.flag(who, "batch_first", batch_first)
    first = np.array([checks.integer(who, "start", start)])
    end = None if end is None else checks.integer(who, "end", end)
    rows = []
    for i, sequence in enumerate(sequences):
        row = checks.integer_array(who, f"sequence {i}", sequence)
        checks.shape(who, f"sequence {i}", row, ("n",), (None,))
        rows.append(row)
    if not rows or (end is None and not any(map(len, rows))):
        raise ValueError(f"{who}: sequences must have a step, got {len(rows)} empty")
    inputs, targets = teach([first] * len(rows), rows, end, ignore_index)
    if batch_first:
        return inputs, targets
    return np.ascontiguousarray(inputs.T), np.ascontiguousarray(targets.T)


def _parts(who, name, value):
    """The sequences in `value`, a list or an array, cut where lengths come with it."""
    lengths = None
    if isinstance(value, tuple):
        if len(value) != 2:
            raise TypeError(
                f"{who}: {name} must be sequences or a pair (sequences, lengths), got "
                f"a tuple of {len(value)}"
            )
        value, lengths = value
    value = listed(value)
    if not isinstance(value, list):
        value = checks.as_array(who, name, value)
        if value.ndim == 0:
            raise TypeError(f"{who}: {name} must be sequences, got {value[()]!r}")
    parts = list(value)
    if not parts:
        raise ValueError(f"{who}: {name} must have samples, got none")
    if lengths is not None:
        lengths = checks.integer_array(who, f"lengths of {name}", lengths)
        checks.shape(who, f"lengths of {name}", lengths, ("N",), (len(parts),))
        for i, n in enumerate(lengths):
            if not 0 <= n <= len(parts[i]):
                raise ValueError(
                    f"{who}: lengths of {name} must be in [0, {len(parts[i])}], got {n}"
                )
        parts = [part[:n] for part, n in zip(parts, lengths, strict=True)]
    return parts


def _not_shorter(who, name, rows, least):
    for i, row in enumerate(rows):
        if len(row) < least:
            raise ValueError(
                f"{who}: {name}[{i}] must have at least {least} step, got {len(row)}"
            )
    return rows


def token_rows(who, name, value, size, least=1):
    """Sequences of tokens as a list of int64 arrays.

    Parameters
    ----------
    value : list of array_like of int, array_like of shape (N, T) or (N, T, 1), or pair
        A pair has the steps of each in addition. Where an array is -100, at a
        sequence's end, there is no step.
    size : int
        Tokens are in [0, size).
    least : int
        Steps that each must have.
    """
    rows = []
    for i, part in enumerate(_parts(who, name, value)):
        row = checks.integer_array(who, f"{name}[{i}]", part)
        if row.ndim == 0:
            row = row[None]
        elif row.ndim == 2 and row.shape[1] == 1:
            row = row[:, 0]  # as `windows` gives a series
        checks.shape(who, f"{name}[{i}]", row, ("T",), (None,))
        inside = row != IGNORED
        n = int(np.count_nonzero(inside))
        if not inside[:n].all():
            raise ValueError(
                f"{who}: {name}[{i}] must have {IGNORED} at its end alone, got it at "
                f"step {inside.argmin()}"
            )
        rows.append(row[:n])
    checks.index_array(who, name, np.concatenate(rows), size)
    return _not_shorter(who, name, rows, least)


def without_ends(who, rows, start, end):
    """Targets without the end token, and the start token where both are round one.

    Examples
    --------
    >>> rows = [np.array([0, 5, 1]), np.array([5, 1]), np.array([5])]
    >>> [row.tolist() for row in without_ends("fit", rows, start=0, end=1)]
    [[5], [5], [5]]
    """
    if end is None:
        return rows
    found = []
    for i, row in enumerate(rows):
        if row[-1:] == end:
            row = row[1:-1] if len(row) > 1 and row[0] == start else row[:-1]
        if (row == end).any():
            raise ValueError(
                f"{who}: y[{i}] must have the end token {end} at its end alone, got it "
                f"at step {(row == end).argmax()}"
            )
        found.append(row)
    return found


def feature_rows(who, name, value, width, dtype):
    """Sequences of features as a list of arrays (T, width)."""
    rows = []
    for i, part in enumerate(_parts(who, name, value)):
        row = checks.float_array(who, f"{name}[{i}]", part, dtype)
        checks.shape(who, f"{name}[{i}]", row, ("T", "input_size"), (None, width))
        rows.append(row)
    return _not_shorter(who, name, rows, 1)


class Pairs(Samples):
    """What each sample is given and the sequence that it is to write.

    Parameters
    ----------
    who : str
        Whom errors name.
    inputs : tuple
        Lists of arrays, or arrays, with an element for each sample; may be empty.
    y : list of ndarray of int64, or None
    weight : array_like, shape (N,), optional
    assemble : callable
        ``assemble(*inputs, y)`` gives a batch's inputs, a tuple, and its target.
    n : int
        Samples.
    """

    several = ragged = False
    pads = True

    def __init__(self, who, inputs, y, weight, assemble, n):
        self.who, self.inputs, self.y, self.n = who, inputs, y, n
        self._assemble = assemble
        for one in inputs:
            self._check_count("each part of x", one)
        if y is not None:
            self._check_count("y", y)
        self.weight = self._weights(weight)
        if self.weight is not None and self.weight.ndim != 1:
            raise ValueError(
                f"{who}: sample_weight must have shape (N,) = ({n},), got "
                f"{self.weight.shape}"
            )
        keys = [one for one in (*inputs, y) if isinstance(one, list)]
        steps = [[len(row) for row in rows] for rows in keys]
        self.lengths = np.array(steps, np.int64).reshape(len(keys), n).T

    def check_steps(self):
        """Nothing: the model says whether it can go on from a state."""

    def scale(self, weight):
        raise ValueError(f"{self.who}: class_weight is not for a model that writes")

    def batches(self, batch_size, order, rng=None):
        """Indices of samples of like lengths, batch by batch; without `rng`, sorted."""
        stretch = self.n if rng is None else batch_size * _BUCKET
        batches = []
        for begin in range(0, self.n, stretch):
            part = order[begin : begin + stretch]
            if self.lengths.shape[1]:
                # By what is written, and for that of one length by what is read.
                part = part[np.lexsort(self.lengths[part].T)]
            batches += [
                part[i : i + batch_size] for i in range(0, len(part), batch_size)
            ]
        if rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def count_batches(self, batch_size):
        return -(-self.n // batch_size)

    def trial(self, batch_size):
        """As that of `Samples`, of one sample: a batch makes rows as long as it is."""
        return super().trial(1)

    def rows(self, indices):
        """The inputs of a batch: lists of arrays, or arrays."""
        return tuple(
            [one[i] for i in indices] if isinstance(one, list) else one[indices]
            for one in self.inputs
        )

    def take(self, indices):
        y = [self.y[i] for i in indices]
        inputs, target = self._assemble(*self.rows(indices), y)
        weight = None if self.weight is None else self.weight[indices]
        return inputs, target, weight

    def take_part(self, indices, span):
        """As `take`, the rows being as long as those of the whole batch are."""
        inputs, target, weight = self.take(indices)
        weight = None if weight is None else weight[span]
        return tuple(one[span] for one in inputs), target[span], weight


def written(samples, batch_size, write):
    """The tokens that `write` gives for all samples, in order.

    Parameters
    ----------
    samples : Pairs
    batch_size : int
    write : callable
        From the inputs of a batch to `Generated`.

    Returns
    -------
    list of ndarray of int64
    """
    found = [None] * samples.n
    for indices in samples.batches(batch_size, np.arange(samples.n)):
        tokens = write(*samples.rows(indices)).tokens
        for i, row in zip(indices, tokens, strict=True):
            found[i] = row
    return found


def padded(rows):
    """Rows as (B, T, ...) and their lengths."""
    return pad_sequences(rows, batch_first=True)
