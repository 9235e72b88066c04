# SPDX-License-Identifier: BSD-3-Clause
"""Checks of arguments, and the one shape their messages have.

Every message names the function or layer, the argument, the rule (in letters, then in
numbers) and what came::

    LSTM: x must have shape (T, B, input_size) = (T, B, 28), got (5, 2, 27)

Data is converted when it can be; an array that is written to never is.  All functions
take the caller's name as `who` and the argument's as `name`, and raise `TypeError` for
the wrong kind of thing and `ValueError` for the wrong one of its kind.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn.util import seeds, tables

DTYPES = ("float32", "float64")
_BY_NAME = {name: np.dtype(name) for name in DTYPES}


def as_tuple(sizes):
    """Write sizes, letters or both as a shape: ``("T", 3)`` gives ``(T, 3)``."""
    inside = ", ".join(str(size) for size in sizes)
    return f"({inside},)" if len(sizes) == 1 else f"({inside})"


def dtype_name(who: str, dtype: Any) -> str:
    """``"float32"`` or ``"float64"`` for anything NumPy takes as one of them."""
    try:
        found = None if dtype is None else np.dtype(dtype).name
    except TypeError:
        found = None
    if found not in DTYPES:
        raise ValueError(f"{who}: dtype must be 'float32' or 'float64', got {dtype!r}")
    return found


def targets_given(who, name, value):
    """Refuse None where there must be targets."""
    if value is None:
        raise TypeError(f"{who}: {name} must be targets, got None")


def as_array(who, name, value):
    """`value` as an array, with one kind of message when NumPy cannot read it.

    Tables and columns of pandas become the numbers that they hold; where a value is
    masked or missing, it is an error.
    """
    if type(value) is np.ndarray:
        return value
    tables.refuse_masked(who, name, value)
    found = tables.numbers_of(who, name, value)
    if found is not None:
        return found
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{who}: {name} must be a rectangular array of numbers, "
            f"got {type(value).__name__}: {error}"
        ) from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{who}: {name} must be an array of numbers, "
            f"got {type(value).__name__}: {error}"
        ) from error


def _aligned(array):
    """`array`, copied if its elements do not lie where the processor wants them."""
    return array if array.flags.aligned else array.copy()


def float_dtype(value):
    """The dtype to work in where no parameter says it: float64 stays, else float32."""
    found = getattr(value, "dtype", None)
    if isinstance(found, np.dtype):  # working out its name takes microseconds
        return "float64" if found.kind == "f" and found.itemsize == 8 else "float32"
    # Another library's: "torch.float64".
    name = getattr(found, "name", str(found))
    return "float64" if name.endswith("float64") else "float32"


def float_array(who, name, value, dtype):
    """`value` as a C-contiguous array of `dtype`; itself when it already is one.

    Real numbers of any width, order in memory, alignment and byte order are converted.
    Complex numbers, strings, dates and objects are not.
    """
    array = as_array(who, name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{who}: {name} must be real numbers, got dtype {array.dtype}")
    dtype = _BY_NAME.get(dtype, dtype)  # NumPy looks names up slowly
    return _aligned(np.asarray(array, dtype=dtype, order="C"))


def integer_array(who, name, value):
    """`value` as a C-contiguous int64 array."""
    array = as_array(who, name, value)
    if array.size == 0 and array.dtype.kind == "f" and not hasattr(value, "dtype"):
        array = array.astype(np.int64)  # an empty list has no type of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"{who}: {name} must be integers, got dtype {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo("i8").max:
        raise ValueError(f"{who}: {name} must fit in int64, got {array.max()}")
    return _aligned(np.asarray(array, dtype=np.int64, order="C"))


def index_array(who, name, value, size):
    """`value` as a C-contiguous int64 array of indices in ``[0, size)``."""
    array = integer_array(who, name, value)
    if array.size:
        for extreme in (array.min(), array.max()):
            if not 0 <= extreme < size:
                raise ValueError(f"{who}: {name} must be in [0, {size}), got {extreme}")
    return array


def shape(who, name, array, letters, sizes):
    """Refuse `array` unless it has the shape of the rule.

    Parameters
    ----------
    letters : tuple of str
        Names of the axes; a leading ``"..."`` stands for any number of axes.
    sizes : tuple of (int or None)
        Size of each axis of `letters`; None where any will do.
    """
    free = letters[:1] == ("...",)
    first = max(array.ndim - len(letters) + 1, 0) if free else 0
    found = array.shape[first:]
    wanted = sizes[1:] if free else sizes
    fits = len(found) == len(wanted) and all(
        size is None or size == came for size, came in zip(wanted, found, strict=True)
    )
    if fits:
        return
    known = tuple(
        letter if size is None else size
        for letter, size in zip(letters, sizes, strict=True)
    )
    rule = as_tuple(letters)
    if as_tuple(known) != rule:
        rule += f" = {as_tuple(known)}"
    raise ValueError(f"{who}: {name} must have shape {rule}, got {array.shape}")


def same_shape(who, name, array, other_name, expected):
    """Refuse `array` unless it has the shape of another one."""
    if array.shape != tuple(expected):
        raise ValueError(
            f"{who}: {name} must have the shape of {other_name}, "
            f"{as_tuple(expected)}, got {array.shape}"
        )


def not_empty(who, name, array, letters):
    """Refuse `array` when an axis that `letters` names has no elements."""
    for letter, size in zip(letters, array.shape, strict=True):
        if size == 0:
            raise ValueError(
                f"{who}: {name} must have {letter} >= 1, got shape {array.shape}"
            )


def writable(who, name, array):
    """Refuse `array` unless it is a writable floating NumPy array."""
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{who}: {name} must be a numpy.ndarray, got {type(array).__name__}"
        )
    if array.dtype.kind != "f":
        raise TypeError(f"{who}: {name} must be floating, got dtype {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{who}: {name} must be writable, got a read-only array")


def _index(rule, value):
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(rule)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(rule) from None


def integer(who: str, name: str, value: Any) -> int:
    """`value` as an int; a bool or a float is not taken for one."""
    return _index(f"{who}: {name} must be an integer, got {value!r}", value)


def not_negative(who: str, name: str, value: Any) -> int:
    """`value` as an int of at least 0."""
    value = integer(who, name, value)
    if value < 0:
        raise ValueError(f"{who}: {name} must be an integer >= 0, got {value}")
    return value


def positive_int(who: str, name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    rule = f"{who}: {name} must be a positive integer, got {value!r}"
    value = _index(rule, value)
    if value < 1:
        raise ValueError(rule)
    return value


def real_in(who: str, name: str, value: Any, interval: str) -> float:
    """`value` as a float in an interval written as in a paper: ``"[0, 1)"``."""
    error = ValueError
    try:
        if type(value) is float or _is_real(value):
            low, high, takes_low, takes_high = _ends(interval)
            number = float(value)
            if (low < number or (takes_low and number == low)) and (
                number < high or (takes_high and number == high)
            ):
                return number
        else:
            error = TypeError
    except OverflowError:  # an integer or a fraction that no float comes near
        pass
    raise error(f"{who}: {name} must be a number in {interval}, got {value!r}")


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


@functools.cache
def _ends(interval):
    """Both ends of an interval, and whether each is in it."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    return low, high, interval[0] == "[", interval[-1] == "]"


def probability(who: str, name: str, value: Any) -> float:
    """`value` as a float in [0, 1]."""
    return real_in(who, name, value, "[0, 1]")


def finite(who: str, name: str, value: Any) -> float:
    """`value` as a finite float."""
    return real_in(who, name, value, "(-inf, inf)")


def flag(who: str, name: str, value: Any) -> bool:
    """`value` as a bool; numbers and strings are not taken for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: {name} must be True or False, got {value!r}")
    return bool(value)


def choice(who: str, name: str, value: Any, options: Sequence[str]) -> str:
    """`value`, when it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{who}: {name} must be one of {listed}, got {value!r}")
    return value


def verbosity(who: str, value: Any) -> int:
    """`value`, 0 or 1, of a callback that can say what it does; flags will do."""
    if value not in (0, 1):
        raise ValueError(f"{who}: verbose must be 0 or 1, got {value!r}")
    return int(value)


def takes(function: Callable[..., Any], n: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(n))
    except TypeError:
        return False
    return True


def generator(who: str, seed: Any) -> np.random.Generator:
    """The random generator that `seed` (None, an int or a generator) stands for."""
    if isinstance(seed, np.random.Generator):
        return seed
    rule = (
        f"{who}: seed must be None, a non-negative integer or a "
        f"numpy.random.Generator, got {seed!r}"
    )
    if seed is None:
        return seeds.unseeded()
    seed = _index(rule, seed)
    if seed < 0:
        raise ValueError(rule)
    return np.random.Generator(np.random.PCG64(seed))
