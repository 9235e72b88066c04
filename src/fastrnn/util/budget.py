# SPDX-License-Identifier: BSD-3-Clause
"""How much the parameters of modules may take: as much as the file that is read has.

A file says how large its model is in a few digits. While a model is made of what a file
says, each module takes its parameters out of a budget of the size that is stored,
before it allocates them; outside of that only sizes beyond any machine are refused.
"""

import contextlib
import contextvars
import math

MOST_PARAMETERS = 10**12  # terabytes: a slip of the keyboard, not a model
MOST_ARRAYS = 10**6  # of one layer
MOST_DATA = 2**22  # numbers that a layer makes of a few while a file is read


class _Budget:
    def __init__(self, n_bytes, n_arrays):
        self.n_bytes, self.n_arrays = n_bytes, n_arrays


_budget = contextvars.ContextVar("_budget", default=None)


@contextlib.contextmanager
def limited(n_bytes, n_arrays):
    """Let modules made within the body take at most so much for their parameters.

    Parameters
    ----------
    n_bytes : int
        Bytes of all parameters together.
    n_arrays : int
        How many parameters there may be.
    """
    before = _budget.set(_Budget(n_bytes, n_arrays))
    try:
        yield
    finally:
        _budget.reset(before)


@contextlib.contextmanager
def trial():
    """Give back at the end what modules take within the body: they are thrown away."""
    left = _budget.get() or _Budget(math.inf, math.inf)
    with limited(left.n_bytes, left.n_arrays):
        yield


def values_follow():
    """Whether nobody will see the first values that modules give their parameters.

    So it is within `limited`, where a file has the values, and within `trial`.
    """
    return _budget.get() is not None


def check(who, n_parameters, n_arrays, itemsize):
    """Refuse parameters that the budget has not left.

    Parameters
    ----------
    who : str
        The layer, for errors.
    n_parameters, n_arrays : int
        Numbers that are to be stored, and arrays that these make up; or bounds that
        they are not below, known before all of them are.
    itemsize : int
        Bytes of a number.

    Raises
    ------
    ValueError
        If they are too many.
    """
    if n_parameters > MOST_PARAMETERS:
        raise ValueError(
            f"{who}: a layer must have at most {MOST_PARAMETERS:,} parameters, "
            f"got sizes that make {_written(n_parameters)}"
        )
    if n_arrays > MOST_ARRAYS:
        raise ValueError(
            f"{who}: a layer must have at most {MOST_ARRAYS:,} arrays of parameters, "
            f"got sizes that make {_written(n_arrays)}"
        )
    left = _budget.get()
    if left is None:
        return
    if n_parameters * itemsize > left.n_bytes or n_arrays > left.n_arrays:
        raise ValueError(
            f"{who}: the model must be no larger than what is stored, "
            f"{left.n_bytes:,} bytes in {left.n_arrays:,} arrays for it and what "
            f"follows, got sizes that make {_written(n_parameters)} parameters in "
            f"{_written(n_arrays)} arrays"
        )


def check_data(who, n):
    """Refuse a layer that makes n numbers of a sample while a file is read.

    A file says in a few digits how often a vector is repeated, or how far a window
    reaches beyond a sequence. Outside of reading, memory is the only limit.

    Raises
    ------
    ValueError
        If they are too many.
    """
    if _budget.get() is not None and n > MOST_DATA:
        raise ValueError(
            f"{who}: a layer in a file must make at most {MOST_DATA:,} numbers of a "
            f"sample, got sizes that make {_written(n)}"
        )


def take(who, n_parameters, n_arrays, itemsize):
    """As `check`, and what is left is less by that."""
    check(who, n_parameters, n_arrays, itemsize)
    left = _budget.get()
    if left is not None:
        left.n_bytes -= n_parameters * itemsize
        left.n_arrays -= n_arrays


def _written(n):
    # Python refuses to write integers of more than some thousand digits.
    return f"{n:,}" if n < 10**30 else "more than 10**30"
