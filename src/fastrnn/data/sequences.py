# SPDX-License-Identifier: BSD-3-Clause
"""Sequences of many lengths: padded, packed, and batched by length."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed
from fastrnn.util.words import Answering, answering


def _arrays(who, sequences):
    """A list of arrays that differ in their first axis alone."""
    if isinstance(sequences, np.ndarray) and sequences.dtype != object:
        sequences = list(sequences)
    if not isinstance(sequences, (list, tuple, np.ndarray)) or not len(sequences):
        raise ValueError(
            f"{who}: sequences must be a list of at least one array, got "
            f"{type(sequences).__name__}"
        )
    arrays = [
        checks.as_array(who, f"sequences[{i}]", s) for i, s in enumerate(sequences)
    ]
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{who}: sequences[{i}] must be real numbers, got dtype {array.dtype}"
            )
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"{who}: sequences must differ in length alone, got shapes "
                f"{arrays[0].shape} and {array.shape}"
            )
    return arrays


@answering
def pad_sequences(
    sequences: Sequence[ArrayLike],
    batch_first: bool = False,
    value: float = 0.0,
    maxlen: int | None = None,
    *,
    padding: str = "post",
    truncating: str = "post",
) -> tuple[Array, Array]:
    """Sequences of many lengths as one array, and their lengths.

    Parameters
    ----------
    sequences : list of array_like, shape (T_i, ...)
    batch_first : bool
        Whether sequences are the first axis of the result; time is if not.
    value : float
        What steps past a sequence's end hold.
    maxlen : int, optional
        Steps of the result; longer sequences lose the rest. Default: the longest's.
    padding, truncating : {"post", "pre"}
        Which end is padded, and which is lost. (Keras's default is "pre".)

    Returns
    -------
    padded : ndarray, shape (T, B, ...) or (B, T, ...)
        Of the sequences' common dtype; a (B, T, ...) array is contiguous, a (T, B, ...)
        one too.
    lengths : ndarray of int64, shape (B,)

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or `value` does not fit the dtype.

    Examples
    --------
    >>> padded, lengths = pad_sequences([[1, 2, 3], [4]], batch_first=True)
    >>> padded.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    who = "pad_sequences"
    if isinstance(batch_first, numbers.Integral) and not isinstance(batch_first, bool):
        raise TypeError(
            f"{who}: batch_first must be True or False, got {batch_first!r}; maxlen is "
            "given by name here, and Keras's pad_sequences(sequences, maxlen) is "
            "fastrnn.keras.utils.pad_sequences"
        )
    arrays = _arrays(who, sequences)
    batch_first = checks.flag(who, "batch_first", batch_first)
    for name, end in (("padding", padding), ("truncating", truncating)):
        checks.choice(who, name, end, ("post", "pre"))
    if maxlen is not None:
        maxlen = checks.positive_int(who, "maxlen", maxlen)
        cut = slice(maxlen) if truncating == "post" else slice(-maxlen, None)
        arrays = [array[cut] for array in arrays]
    lengths = np.array([len(array) for array in arrays], np.int64)
    T, B = int(lengths.max()) if maxlen is None else maxlen, len(arrays)
    dtype = np.result_type(*{array.dtype for array in arrays})
    if np.array(value).astype(dtype) != value and not np.isnan(value):
        raise ValueError(f"{who}: value must fit in {dtype}, got {value!r}")
    shape = (B, T) if batch_first else (T, B)
    padded = np.full((*shape, *arrays[0].shape[1:]), value, dtype)
    by_sequence = padded if batch_first else padded.swapaxes(0, 1)
    for row, array in zip(by_sequence, arrays, strict=True):
        first = T - len(array) if padding == "pre" else 0
        row[first : first + len(array)] = array
    return padded, lengths


class Packed(NamedTuple):
    """Sequences one after the other, without padding.

    Attributes
    ----------
    data : ndarray, shape (sum of lengths, ...)
    lengths : ndarray of int64, shape (B,)
    """

    data: Array
    lengths: Array


def pack(sequences: Sequence[ArrayLike]) -> Packed:
    """Sequences of many lengths as one array without padding.

    Parameters
    ----------
    sequences : list of array_like, shape (T_i, ...)

    Returns
    -------
    Packed
        Where all are views, one after the other, of one array, as `unpack` gives them,
        ``data`` is that array and nothing is copied.

    Raises
    ------
    ValueError, TypeError
        If the sequences differ in more than length, or are not numbers.

    Examples
    --------
    >>> packed = pack([[1, 2, 3], [4]])
    >>> packed.data.tolist(), packed.lengths.tolist()
    ([1, 2, 3, 4], [3, 1])
    >>> [sequence.tolist() for sequence in unpack(packed)]
    [[1, 2, 3], [4]]
    """
    arrays = _arrays("pack", sequences)
    lengths = np.array([len(array) for array in arrays], np.int64)
    whole = _joined(arrays, int(lengths.sum()))
    return Packed(np.concatenate(arrays) if whole is None else whole, lengths)


def _joined(arrays, total):
    """The array that `arrays` are parts of, in order and without gaps; None if none."""
    base = arrays[0].base
    if not isinstance(base, np.ndarray) or base.shape != (total, *arrays[0].shape[1:]):
        return None
    at, step = base.ctypes.data, base.strides[0]
    for array in arrays:
        same = array.dtype == base.dtype and array.strides == base.strides
        if len(array) and not (same and array.base is base and array.ctypes.data == at):
            return None
        at += step * len(array)
    return base


def unpack(packed: Packed | tuple[ArrayLike, ArrayLike]) -> list[Array]:
    """The sequences that `pack` joined, as views.

    Parameters
    ----------
    packed : Packed or pair of (data, lengths)

    Returns
    -------
    list of ndarray, shape (T_i, ...)

    Raises
    ------
    ValueError, TypeError
        If lengths are negative, or their sum is not that of the data.

    Examples
    --------
    >>> [sequence.tolist() for sequence in unpack((np.arange(4), [3, 1]))]
    [[0, 1, 2], [3]]
    """
    who = "unpack"
    data, lengths = packed
    data = checks.as_array(who, "data", data)
    lengths = checks.integer_array(who, "lengths", lengths)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != len(data):
        raise ValueError(
            f"{who}: lengths must be at least 0 and sum up to {len(data)}, "
            f"got {lengths.tolist()}"
        )
    ends = np.cumsum(lengths)
    return [data[end - n : end] for end, n in zip(ends, lengths, strict=True)]


def mask_from_lengths(
    lengths: ArrayLike,
    steps: int | None = None,
    batch_first: bool = False,
    *,
    padding: str = "post",
) -> Array:
    """Where a padded batch has steps of its sequences.

    Parameters
    ----------
    lengths : array_like of int, shape (B,)
    steps : int, optional
        T; default: the longest.
    batch_first : bool
    padding : {"post", "pre"}
        Which end is padded.

    Returns
    -------
    ndarray of bool, shape (T, B) or (B, T)

    Raises
    ------
    ValueError, TypeError
        If a length is negative or above `steps`.

    Examples
    --------
    >>> mask_from_lengths([1, 3], batch_first=True).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    who = "mask_from_lengths"
    lengths = checks.integer_array(who, "lengths", lengths)
    if lengths.ndim != 1 or not lengths.size:
        raise ValueError(f"{who}: lengths must have shape (B,), got {lengths.shape}")
    steps = int(lengths.max()) if steps is None else checks.integer(who, "steps", steps)
    if lengths.min() < 0 or lengths.max() > steps:
        wrong = lengths.min() if lengths.min() < 0 else lengths.max()
        raise ValueError(
            f"{who}: lengths must be in [0, T] = [0, {steps}], got {wrong}"
        )
    checks.choice(who, "padding", padding, ("post", "pre"))
    mask = np.arange(steps) < lengths[:, None]
    mask = mask if padding == "post" else mask[:, ::-1].copy()
    return mask if batch_first else np.ascontiguousarray(mask.T)


class BucketSampler(Answering):
    """Batches of sequences of similar length, in a new order every epoch.

    Samples are shuffled, sorted by length within stretches of `bucket_size` batches,
    and cut into batches, which are shuffled in their turn: little is padded, and what
    shares a batch differs from epoch to epoch.

    Parameters
    ----------
    lengths : array_like of int, shape (N,)
    batch_size : int
    bucket_size : int
        Batches that are sorted together. 1: no sorting.
    shuffle : bool
        If not, all samples are sorted together, longest first, always the same.
    drop_last : bool
        Leave out the batch that is not full.
    seed : int
        The order of epoch e depends on the seed and e alone.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> sampler = BucketSampler([5, 2, 9, 4], 2, shuffle=False)
    >>> [batch.tolist() for batch in sampler]
    [[2, 0], [3, 1]]
    """

    def __init__(
        self,
        lengths: ArrayLike,
        batch_size: int,
        bucket_size: int = 50,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: Seed = 0,
    ) -> None:
        who = type(self).__name__
        self.lengths: Array = checks.integer_array(who, "lengths", lengths)
        if self.lengths.ndim != 1 or not self.lengths.size:
            raise ValueError(
                f"{who}: lengths must have shape (N,), got {self.lengths.shape}"
            )
        self.batch_size = checks.positive_int(who, "batch_size", batch_size)
        self.bucket_size = checks.positive_int(who, "bucket_size", bucket_size)
        self.shuffle = checks.flag(who, "shuffle", shuffle)
        self.drop_last = checks.flag(who, "drop_last", drop_last)
        checks.generator(who, checks.integer(who, "seed", seed))
        self.seed, self.epoch = int(seed), 0

    def __len__(self) -> int:
        n, size = self.lengths.size, self.batch_size
        return n // size if self.drop_last else -(-n // size)

    def __iter__(self) -> Iterator[Array]:
        """Batches of one epoch: arrays of indices. Each call is the next epoch."""
        n, size = self.lengths.size, self.batch_size
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        stretch = size * self.bucket_size if self.shuffle else n
        parts = []
        for start in range(0, n, stretch):
            part = order[start : start + stretch]
            if self.bucket_size > 1 or not self.shuffle:
                part = part[np.argsort(-self.lengths[part], kind="stable")]
            parts.append(part)
        order = np.concatenate(parts)
        batches = [order[start : start + size] for start in range(0, n, size)]
        if self.drop_last and len(batches[-1]) < size:
            batches.pop()
        if self.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return iter(batches)
