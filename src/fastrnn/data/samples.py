# SPDX-License-Identifier: BSD-3-Clause
"""`Samples`: what `fit`, `evaluate` and `predict` are given, cut into batches."""

import copy
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks, tables

# What models take for samples: arrays, or sequences of many lengths in a list.
Data: TypeAlias = ArrayLike | Sequence[ArrayLike]


def _is_ragged(value):
    """Whether `value` is a list of arrays that are not all of one shape."""
    if not isinstance(value, list) or not value:
        return False
    shapes = {np.shape(item) for item in value}
    return len(shapes) > 1


def listed(value):
    """A list in place of a pandas column, or an array of objects, of sequences."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind == "O" and np.ndim(value) == 1 and any(map(np.ndim, value)):
        return list(value)
    return value


def _numbers(who, name, value):
    """`value` as an array of real numbers, with an axis of samples."""
    array = checks.as_array(who, name, value)
    if array.dtype.kind == "O":
        array = tables.object_numbers(who, name, array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{who}: {name} must be real numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{who}: {name} must have an axis of samples, got a number")
    return array


class Samples:
    """Inputs, targets and weights, the first axis being that of samples.

    Parameters
    ----------
    who : str
        Whom errors name.
    x : array_like of shape (N, ...), tuple of these, or list of arrays
        A tuple has several inputs; a list may have sequences (T, F) of many lengths.
    y : array_like of shape (N, ...) or list of arrays, optional
        Targets; an empty tuple for none. A list goes with a list `x`, a target for
        every step.
    weight : array_like, shape (N,) or (N, T), or list of array_like (T_i,), optional

    Raises
    ------
    ValueError, TypeError
        If they do not go together.

    Examples
    --------
    >>> samples = Samples("fit", [np.zeros((3, 1)), np.zeros((2, 1)), np.ones((3, 1))])
    >>> [batch.tolist() for batch in samples.batches(2, np.arange(3))]
    [[0, 2], [1]]
    """

    pads = False  # whether the rows of a batch are made as long as its longest

    def __init__(self, who, x, y=(), weight=None):
        if y is None:
            raise TypeError(f"{who}: y must be targets, got None")
        self.who = who
        for name, value in (("x", x), ("y", y), ("sample_weight", weight)):
            tables.refuse_masked(who, name, value)
        x, y, weight = listed(x), listed(y), listed(weight)
        self.several = isinstance(x, tuple)
        self.ragged = _is_ragged(x)
        self.lengths = None
        if self.ragged:
            self.inputs = (
                [_numbers(who, f"x[{i}]", item) for i, item in enumerate(x)],
            )
            self._check_sequences()
        elif self.several:
            self.inputs = tuple(_numbers(who, f"x[{i}]", v) for i, v in enumerate(x))
        else:
            self.inputs = (_numbers(who, "x", x),)
        self.n = len(self.inputs[0]) if self.inputs else 0
        for i, one in enumerate(self.inputs[1:], 1):
            self._check_count(f"x[{i}]", one)
        if self.n == 0:
            raise ValueError(f"{who}: x must have samples, got none")
        self.y = self._targets(y)
        self.weight = self._weights(weight)

    def _weights(self, weight):
        if weight is None:
            return None
        if self.ragged and _is_ragged(weight):
            parts = [self._weight(f"[{i}]", one) for i, one in enumerate(weight)]
            self._check_count("sample_weight", parts)
            for i, (length, one) in enumerate(zip(self.lengths, parts, strict=True)):
                if one.shape != (length,):
                    raise ValueError(
                        f"{self.who}: sample_weight[{i}] must have a weight for each "
                        f"of the {length} steps of x[{i}], got shape {one.shape}"
                    )
            return parts
        weight = self._weight("", weight)
        self._check_count("sample_weight", weight)
        return weight

    def _weight(self, which, weight):
        name = f"sample_weight{which}"
        weight = checks.float_array(self.who, name, weight, np.float64)
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError(f"{self.who}: {name} must be finite and >= 0")
        return weight

    def _check_sequences(self):
        sequences = self.inputs[0]
        inner = sequences[0].shape[1:]
        for item in sequences:
            if item.shape[1:] != inner:
                raise ValueError(
                    f"{self.who}: x must have sequences that differ in length alone, "
                    f"got shapes {sequences[0].shape} and {item.shape}"
                )
        self.lengths = np.array([len(item) for item in sequences])
        if not self.lengths.all():
            raise ValueError(
                f"{self.who}: x must have sequences with steps, got length 0"
            )

    def _targets(self, y):
        if isinstance(y, tuple) and not y:
            return None
        if _is_ragged(y) and self.ragged:
            y = [_numbers(self.who, f"y[{i}]", item) for i, item in enumerate(y)]
            self._check_count("y", y)
            for i, (length, item) in enumerate(zip(self.lengths, y, strict=True)):
                if len(item) != length:
                    raise ValueError(
                        f"{self.who}: y[{i}] must have a target for each of the "
                        f"{length} steps of x[{i}], got {len(item)}"
                    )
            return y
        y = _numbers(self.who, "y", y)
        self._check_count("y", y)
        return y

    def _check_count(self, name, value):
        if len(value) != self.n:
            hint = ""
            if name == "x[1]" and np.shape(value) == np.shape(self.inputs[0])[1:2]:
                hint = (
                    "; if x is what pad_sequences gives, (padded, lengths), x must be "
                    "padded, with batch_first=True; Keras's padded array is that of "
                    "fastrnn.keras.utils.pad_sequences"
                )
            raise ValueError(
                f"{self.who}: {name} must have as many samples as x, {self.n}, "
                f"got {len(value)}{hint}"
            )

    def scale(self, weight):
        """Multiply the weights by others: (N,), (N, T), or a list of (T_i,)."""
        own = self.weight
        if own is None:
            self.weight = weight
        elif isinstance(weight, list) or isinstance(own, list):
            self.weight = [a * b for a, b in zip(own, weight, strict=True)]
        elif own.ndim < weight.ndim:
            self.weight = own.reshape(-1, *[1] * (weight.ndim - own.ndim)) * weight
        else:
            extra = own.ndim - weight.ndim
            self.weight = own * weight.reshape(weight.shape + (1,) * extra)

    def scale_classes(self, weights):
        """Multiply the weights by those that `weights` gives for the targets."""
        self.scale(weights(self.y))

    def check_steps(self):
        """Refuse what truncated back-propagation through time cannot cut."""
        x = self.inputs[0]
        if self.several or self.ragged:
            raise ValueError(f"{self.who}: tbptt needs x to be one array (N, T, ...)")
        if x.ndim < 2 or self.y.ndim < 2 or self.y.shape[1] != x.shape[1]:
            raise ValueError(
                f"{self.who}: tbptt needs a target for every step: y must have shape "
                f"(N, T, ...) as x, {x.shape}, got {self.y.shape}"
            )

    def split(self, share):
        """Without the last part, and the last part: `share` of the samples.

        The first part has ``floor(N (1 - share))``, as in Keras.
        """
        border = int(np.floor(self.n * (1 - share)))
        if not 0 < border < self.n:
            raise ValueError(
                f"{self.who}: validation_split must leave samples on both sides, got "
                f"{share:g} of {self.n}"
            )
        return self._part(slice(border)), self._part(slice(border, None))

    def _part(self, span):
        part = copy.copy(self)
        part.inputs = tuple(one[span] for one in self.inputs)
        part.lengths = None if self.lengths is None else self.lengths[span]
        part.y = None if self.y is None else self.y[span]
        part.weight = None if self.weight is None else self.weight[span]
        part.n = len(range(self.n)[span])
        return part

    def batches(self, batch_size, order, rng=None):
        """Indices of samples, batch by batch.

        Sequences of many lengths come in batches of one length each, so that nothing
        is padded and no result depends on what it shares a batch with.

        Parameters
        ----------
        batch_size : int
        order : ndarray of int, shape (N,)
        rng : numpy.random.Generator, optional
            Shuffles batches of several lengths.

        Returns
        -------
        list of ndarray
        """
        groups = [order]
        if self.ragged:
            lengths = self.lengths[order]
            groups = [order[lengths == length] for length in np.unique(lengths)[::-1]]
        batches = [
            group[start : start + batch_size]
            for group in groups
            for start in range(0, len(group), batch_size)
        ]
        if self.ragged and rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def count_batches(self, batch_size):
        """How many `batches` gives."""
        if not self.ragged:
            return -(-self.n // batch_size)
        counts = np.unique(self.lengths, return_counts=True)[1]
        return int(np.sum(-(-counts // batch_size)))

    def epoch(self, batch_size, rng=None):
        """Inputs, targets and weights batch by batch; with `rng` in another order.

        Yields
        ------
        (tuple, ndarray or list, ndarray or None)
        """
        for indices in self.order(batch_size, rng):
            yield self.take(indices)

    def order(self, batch_size, rng=None):
        """Indices of samples, batch by batch, of an epoch: a list of ndarray."""
        order = np.arange(self.n) if rng is None else rng.permutation(self.n)
        return self.batches(batch_size, order, rng)

    def sample(self):
        """The inputs of one sample."""
        return self.take(np.arange(1))[0]

    def trial(self, batch_size):
        """The inputs of one sample, and targets and weights of a batch with it."""
        batch = self.batches(batch_size, np.arange(self.n))[0]
        _, target, weight = self.take(batch)
        return self.take(batch[:1])[0], target, weight

    def sizes(self, batch_size):
        """How many samples batches have, each number once."""
        return sorted({len(one) for one in self.batches(batch_size, np.arange(self.n))})

    def take(self, indices):
        """Inputs (a tuple), targets and weights of a batch."""
        # Neighbours are a view, which costs nothing.
        if indices[-1] - indices[0] == len(indices) - 1 and (
            len(indices) == 1 or (np.diff(indices) == 1).all()
        ):
            span = slice(indices[0], indices[-1] + 1)
        else:
            span = indices
        inputs = tuple(_pick(one, indices, span) for one in self.inputs)
        y = None if self.y is None else _pick(self.y, indices, span)
        weight = None if self.weight is None else _pick(self.weight, indices, span)
        return inputs, y, weight

    def take_part(self, indices, span):
        """What `take` gives, of some of the rows of a batch."""
        return self.take(indices[span])


def _pick(values, indices, span):
    if isinstance(values, list):
        return np.stack([values[i] for i in indices])
    return values[span]
