# SPDX-License-Identifier: BSD-3-Clause
"""Arrays that say which of their values are missing: pandas columns, masked arrays.

NumPy would drop a mask without a word, and makes objects of a table whose columns have
several types.  Here a table becomes the numbers that it holds, and what is missing, or
no number, is an error that names the column.

pandas is never imported: its objects are known by what they offer.
"""

import numbers
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.util.later import Later

if TYPE_CHECKING:
    import decimal
else:
    decimal = Later("decimal")

_NUMBERS = "fiub"


def refuse_masked(who, name, value):
    """Refuse an array, or lists of arrays, in which elements are masked.

    Raises
    ------
    ValueError
        If elements are masked. A mask that is False everywhere says nothing and is
        passed over.
    """
    if isinstance(value, np.ma.MaskedArray):
        n = int(np.count_nonzero(np.ma.getmaskarray(value)))
        if n:
            raise ValueError(
                f"{who}: {name} must not have masked elements, got {n} of {value.size};"
                " fill them, as with x.filled(0): a Masking layer, or mask= of a call,"
                " says which steps count"
            )
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, (np.ma.MaskedArray, list, tuple)):
                refuse_masked(who, name, item)


def _column(who, what, column):
    """A column as an array of numbers; `what` is what errors call it."""
    numpy_dtype = getattr(column.dtype, "numpy_dtype", None)  # of a nullable column
    nullable = numpy_dtype is not None and numpy_dtype.kind in _NUMBERS
    missing = np.asarray(column.isna(), bool) if nullable else None
    if nullable and missing.any():
        raise ValueError(
            f"{who}: {what} must have no missing values, got {column.dtype} with "
            f"{np.count_nonzero(missing)} of them, the first in row {missing.argmax()};"
            " fill them or leave such rows out"
        )
    if nullable:
        return np.asarray(column, numpy_dtype)
    array = np.asarray(column)
    if array.dtype.kind != "O":
        return array
    return object_numbers(who, what, array, column.dtype)


def object_numbers(who, what, array, dtype="object"):
    """An array of objects that are all real numbers, as one of numbers.

    Parameters
    ----------
    what : str
        What errors call it.
    array : ndarray of objects
    dtype : object
        What errors call its type.

    Raises
    ------
    ValueError
        If an object stands for a missing value (None, pandas's NA).
    TypeError
        If one is no real number.
    """
    kinds = set()
    for row, one in enumerate(array.ravel()):
        if one is None or type(one).__name__ in ("NAType", "NaTType"):
            raise ValueError(
                f"{who}: {what} must have no missing values, got {one!r} as value "
                f"{row} (dtype {dtype}); fill them or leave such rows out"
            )
        if not isinstance(one, (numbers.Real, decimal.Decimal, np.bool_)):
            raise TypeError(
                f"{who}: {what} must be real numbers, got {one!r} as value {row} "
                f"(dtype {dtype})"
            )
        kinds.add(np.asarray(one).dtype if isinstance(one, np.generic) else type(one))
    if kinds <= {bool, np.dtype(bool)}:
        return array.astype(bool)
    whole = all(
        kind.kind in "iub" if isinstance(kind, np.dtype) else issubclass(kind, int)
        for kind in kinds
    )
    if whole:
        try:
            return array.astype(np.int64)
        except OverflowError:
            raise ValueError(
                f"{who}: {what} must fit in int64, got {max(array.ravel(), key=abs)}"
            ) from None
    return array.astype(np.float64)


def numbers_of(who, name, value):
    """What a pandas table or column holds as an array; None for anything else.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    ndarray or None
        Of the columns' common type, as NumPy finds it: bool and float64 give float64.
        A column of dates is an array of dates.

    Raises
    ------
    ValueError
        If a value is missing where the column's type knows missing values.
    TypeError
        If a column has no numbers. Both name the column.
    """
    if hasattr(value, "columns") and hasattr(value, "iloc"):
        columns = [
            _column(who, f"column {label!r} of {name}", value.iloc[:, i])
            for i, label in enumerate(value.columns)
        ]
        for label, column in zip(value.columns, columns, strict=True):
            if column.dtype.kind not in _NUMBERS:
                raise TypeError(
                    f"{who}: column {label!r} of {name} must be real numbers, got "
                    f"dtype {column.dtype}"
                )
        return np.stack(columns, axis=1) if columns else np.empty((len(value), 0))
    if hasattr(value, "dtype") and hasattr(value, "isna"):
        label = getattr(value, "name", None)
        what = name if label is None else f"column {label!r} of {name}"
        return _column(who, what, value)
    return None
