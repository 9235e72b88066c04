# SPDX-License-Identifier: BSD-3-Clause
"""Which of two figures is better: the one comparison behind every "best so far"."""

import math


def is_better(value, best, *, upwards=False, min_delta=0.0):
    """Whether a figure is better than the best one so far.

    Parameters
    ----------
    value : float
        The figure. NaN is never better than anything.
    best : float or None
        The best so far. None and NaN are worse than every number, infinities included.
    upwards : bool
        Whether more is better.
    min_delta : float >= 0
        What counts as better: by more than this.

    Returns
    -------
    bool

    Examples
    --------
    >>> nan = float("nan")
    >>> is_better(0.5, None), is_better(0.5, nan), is_better(nan, None)
    (True, True, False)
    >>> is_better(0.5, 0.6), is_better(0.5, 0.6, upwards=True)
    (True, False)
    """
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    if upwards:
        return value - min_delta > best
    return value + min_delta < best
