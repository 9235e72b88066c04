# SPDX-License-Identifier: BSD-3-Clause
"""`pad_sequences` as Keras has it: one array, with the padding before the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrnn.data import sequences as own
from fastrnn.util import checks
from fastrnn.util.words import answering


@answering
def pad_sequences(
    sequences: Sequence[npt.ArrayLike],
    maxlen: int | None = None,
    dtype: npt.DTypeLike = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> npt.NDArray[Any]:
    """Sequences of many lengths as one array, samples first, as Keras pads them.

    `fit` takes the result as it is. Steps that were put before a sequence count like
    all others, unless an ``Embedding(mask_zero=True)`` or a `Masking` says otherwise:
    then a model's results are those of the sequences without padding, at whichever end
    it is.

    Parameters
    ----------
    sequences : list of array_like, shape (T_i, ...)
        Of token numbers, or of features. A sequence may be empty.
    maxlen : int, optional
        Steps of the result; longer sequences lose the rest. Default: the longest's.
    dtype : dtype
        Of the result, a type of real numbers.
    padding, truncating : {"pre", "post"}
        Which end is padded, and which is lost.
    value : float
        What steps outside a sequence hold.

    Returns
    -------
    ndarray, shape (N, maxlen, ...)

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> pad_sequences([[1, 2, 3], [4]]).tolist()
    [[1, 2, 3], [0, 0, 4]]
    >>> pad_sequences([[1, 2, 3], [4]], maxlen=2, padding="post").tolist()
    [[2, 3], [4, 0]]
    """
    who = "pad_sequences"
    kind = np.dtype(dtype)
    if kind.kind not in "fiu":
        raise TypeError(f"{who}: dtype must be one of real numbers, got {dtype!r}")
    arrays = []
    for i, one in enumerate(sequences):
        array = checks.as_array(who, f"sequences[{i}]", one)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{who}: sequences[{i}] must be real numbers, got dtype {array.dtype}"
            )
        arrays.append(array.astype(kind))
    features = next((one.shape[1:] for one in arrays if one.size), ())
    arrays = [one if one.size else np.zeros((0, *features), kind) for one in arrays]
    padded, _ = own.pad_sequences(
        arrays, True, value, maxlen, padding=padding, truncating=truncating
    )
    return padded
