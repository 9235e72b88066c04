# SPDX-License-Identifier: BSD-3-Clause
"""Timing of blocks of calls, and statistics of the times."""

import gc
import math
import statistics
import time

BLOCK = 0.05  # seconds
# A sample takes at least so many seconds, so that the time to read the clock is nothing
# beside it.
SAMPLE = 100e-6
# A call of so many seconds is timed as it is. Before a shorter one, another call has to
# wake the threads.
LONG = 0.25


def _seconds(call, n=1):
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def block_time(call, block=BLOCK):
    """Time the calls that fit in `block` seconds, at least one.

    A first call wakes the threads, and tells how many calls make a sample. It does not
    count, unless it takes so long that it is the only one.

    Returns
    -------
    seconds : float
        The seconds that a call takes: the median of the samples.
    cores : float
        How many cores the process kept busy: its CPU seconds divided by the seconds on
        the clock.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        cpu, begin = time.process_time(), time.perf_counter()
        times = [_seconds(call)]
        if times[0] < LONG:
            n = math.ceil(SAMPLE / _seconds(call))
            cpu, begin, times = time.process_time(), time.perf_counter(), []
            while not times or time.perf_counter() - begin < block:
                times.append(_seconds(call, n))
        cores = (time.process_time() - cpu) / (time.perf_counter() - begin)
        return statistics.median(times), cores
    finally:
        if was_enabled:
            gc.enable()


def mean_time(call, seconds):
    """Call for so many seconds, at least once; how many calls, and what all took.

    A first call, which wakes the threads, does not count. Unlike in `block_time`, what
    stops a call for a while counts.
    """
    call()
    calls, begin = 0, time.perf_counter()
    while not calls or time.perf_counter() - begin < seconds:
        call()
        calls += 1
    return calls, time.perf_counter() - begin


def turns(names, rounds):
    """The names in the order of timing: all in each round, in turn forth and back."""
    for number in range(rounds):
        yield from list(names)[:: -1 if number % 2 else 1]


def quartiles(values):
    """The first quartile, the median and the third quartile; NaN without any values."""
    if len(values) < 2:
        q1 = q2 = q3 = values[0] if values else math.nan
    else:
        q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": q2, "q3": q3}
