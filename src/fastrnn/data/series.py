# SPDX-License-Identifier: BSD-3-Clause
"""From tables and series to the arrays that models take.

pandas objects go in wherever arrays do, and NumPy arrays come out.  For scaling take
scikit-learn's scalers as they are, fitted on the part to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks, tables
from fastrnn.util.typing import Array


def one_hot(
    indices: ArrayLike, num_classes: int | None = None, dtype: str = "float32"
) -> Array:
    """Rows with a one at each index and zeros elsewhere.

    Parameters
    ----------
    indices : array_like of int, any shape
        At least 0.
    num_classes : int, optional
        Default: one more than the largest index.
    dtype : {"float32", "float64"}

    Returns
    -------
    ndarray, shape indices.shape + (num_classes,)

    Raises
    ------
    ValueError, TypeError
        If an index is out of range, or no integer.

    Examples
    --------
    >>> one_hot([2, 0]).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    who = "one_hot"
    indices = checks.integer_array(who, "indices", indices)
    if num_classes is None:
        if not indices.size:
            raise ValueError(f"{who}: num_classes must be given where indices are none")
        num_classes = int(indices.max()) + 1
    else:
        num_classes = checks.positive_int(who, "num_classes", num_classes)
    indices = checks.index_array(who, "indices", indices, max(1, num_classes))
    encoded = np.zeros((*indices.shape, num_classes), checks.dtype_name(who, dtype))
    np.put_along_axis(encoded, indices[..., None], 1, axis=-1)
    return encoded


def _series(who, name, value):
    """A series as (T, F), without a copy where it is an array."""
    array = checks.as_array(who, name, value)
    if array.dtype.kind == "O":
        array = tables.object_numbers(who, name, array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{who}: {name} must be real numbers, got dtype {array.dtype}")
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{who}: {name} must have shape (T,) or (T, F), got {array.shape}"
        )
    return array if array.ndim == 2 else array[:, None]


def _typed(who, name, value):
    """`value` as an array of numbers or of dates."""
    array = checks.as_array(who, name, value)
    if array.dtype.kind == "O":
        array = tables.object_numbers(who, name, array)
    if array.dtype.kind not in "fiubMm":
        raise TypeError(
            f"{who}: {name} must be real numbers or dates, got dtype {array.dtype}"
        )
    return array


def windows(
    series: ArrayLike,
    length: int,
    horizon: int = 1,
    target: int | Sequence[int] | None = None,
    stride: int = 1,
    gap: int = 0,
) -> tuple[Array, Array]:
    """Sliding windows over a series, and what follows each.

    Parameters
    ----------
    series : array_like, shape (T,) or (T, F)
        Time first; a pandas Series or DataFrame will do, of numbers and flags, nullable
        ones included as long as no value is missing.
    length : int
        Steps in a window.
    horizon : int
        Steps to predict.
    target : array_like, shape (T,) or (T, K), optional
        What to predict, step by step beside `series`. Default: `series` itself.
    stride : int
        Steps from one window to the next.
    gap : int >= 0
        Steps between a window's end and what is to be predicted.

    Returns
    -------
    x : ndarray, shape (N, length, F)
    y : ndarray, shape (N, horizon, K), or (N, K) for a horizon of 1
        Both are read-only views of the series: a batch is copied when it is taken.

    Raises
    ------
    ValueError, TypeError
        If the series is too short for one window, or an argument is not as described.

    Examples
    --------
    >>> x, y = windows([1, 2, 3, 4, 5], length=3)
    >>> x[..., 0].tolist(), y.tolist()
    ([[1, 2, 3], [2, 3, 4]], [[4], [5]])
    """
    who = "windows"
    series = _series(who, "series", series)
    target = series if target is None else _series(who, "target", target)
    length = checks.positive_int(who, "length", length)
    horizon = checks.positive_int(who, "horizon", horizon)
    stride = checks.positive_int(who, "stride", stride)
    gap = checks.integer(who, "gap", gap)
    if gap < 0:
        raise ValueError(f"{who}: gap must be at least 0, got {gap}")
    if len(target) != len(series):
        raise ValueError(
            f"{who}: target must have as many steps as series, {len(series)}, "
            f"got {len(target)}"
        )
    need = length + gap + horizon
    if len(series) < need:
        raise ValueError(
            f"{who}: series must have at least length + gap + horizon = {need} steps, "
            f"got {len(series)}"
        )
    view = np.lib.stride_tricks.sliding_window_view
    x = view(series[: len(series) - gap - horizon], length, axis=0)
    y = view(target[length + gap :], horizon, axis=0)
    x, y = (np.moveaxis(part[::stride], -1, 1) for part in (x, y))
    return x, y[:, 0] if horizon == 1 else y


def split_by_time(*series: Any, test_size: float = 0.2, overlap: int = 0) -> list[Any]:
    """The earlier part of series to train on, and the later to test on.

    Parameters
    ----------
    *series : array_like, shape (T, ...)
        Numbers or dates, of one length; pandas objects will do.
    test_size : float in (0, 1) or int
        Share, or number, of the steps at the end.
    overlap : int >= 0
        Steps before those that the later part begins with: a window's `length`, so that
        the first step of the later part has a window before it.

    Returns
    -------
    list of ndarray
        Earlier and later part of the first series, then of the second, and so on;
        views where the series are arrays.

    Raises
    ------
    ValueError, TypeError
        If a part has no steps, or an argument is not as described.

    Examples
    --------
    >>> train, test = split_by_time(np.arange(10), test_size=0.3, overlap=2)
    >>> train.tolist(), test.tolist()
    ([0, 1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 9])
    """
    who = "split_by_time"
    if not series:
        raise TypeError(f"{who}: at least one series must be given")
    arrays = [_typed(who, f"series[{i}]", s) for i, s in enumerate(series)]
    if any(array.ndim == 0 for array in arrays):
        raise ValueError(f"{who}: series must have an axis of time, got a number")
    T = len(arrays[0])
    for array in arrays[1:]:
        if len(array) != T:
            raise ValueError(
                f"{who}: series must have one length, got {T} and {len(array)}"
            )
    if isinstance(test_size, float):
        share = checks.real_in(who, "test_size", test_size, "(0, 1)")
        n_test = round(T * share)
    else:
        n_test = checks.positive_int(who, "test_size", test_size)
    overlap = checks.integer(who, "overlap", overlap)
    border = T - n_test
    if not 0 < border < T or not 0 <= overlap <= border:
        raise ValueError(
            f"{who}: test_size and overlap must leave steps in both parts, got "
            f"{test_size!r} and {overlap} of {T} steps"
        )
    return [part for a in arrays for part in (a[:border], a[border - overlap :])]
