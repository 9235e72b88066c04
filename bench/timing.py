# SPDX-License-Identifier: BSD-3-Clause
"""Interleaved timing of two ways to do the same work in one process.

Two libraries may each bring an OpenMP runtime, and a pool of threads that has just
worked keeps spinning for some milliseconds, on the cores that the other one wants.  So
a block of calls of one library is preceded by a pause in which all threads fall asleep,
and by one untimed call that wakes its own.
"""

import math
import statistics
import time

PAUSE = 0.05
BLOCK = 0.02


def block_time(call, pause=PAUSE, block=BLOCK):
    """Median seconds of the calls that fit in `block` seconds, at least one."""
    time.sleep(pause)
    call()
    times = []
    end = time.perf_counter() + block
    while True:
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        times.append(stop - start)
        if stop >= end:
            return statistics.median(times)


def interleave(calls, rounds):
    """Seconds of each call in each round; the order turns round every time.

    Parameters
    ----------
    calls : dict of str to callable
        What to time.
    rounds : int
        Number of blocks of each.

    Returns
    -------
    dict of str to list of float
        Seconds per call, one figure a round.
    """
    times = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            times[name].append(block_time(calls[name]))
    return times


def quartiles(values):
    """First quartile, median and third quartile as a dict; NaN for no values."""
    if len(values) < 2:
        q1 = q2 = q3 = values[0] if values else math.nan
    else:
        q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": q2, "q3": q3}
