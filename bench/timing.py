# SPDX-License-Identifier: BSD-3-Clause
"""Timed blocks of calls, and what is said of their times."""

import gc
import math
import statistics
import time

BLOCK = 0.05
# A sample is at least this long, so that reading the clock costs nothing.
SAMPLE = 100e-6
# A call this long needs no other one to wake the threads for it.
LONG = 0.25


def _seconds(call, n=1):
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def block_time(call, block=BLOCK):
    """Time the calls that fit in `block` seconds, at least one.

    A first call, untimed, wakes the threads and says how many calls make a sample; a
    long one counts instead.

    Returns
    -------
    seconds : float
        Of a call: the median of the samples.
    cores : float
        CPU seconds of the whole process by seconds on the clock.
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


def turns(names, rounds):
    """In which order to time: each name once a round, the order turning round."""
    for number in range(rounds):
        yield from list(names)[:: -1 if number % 2 else 1]


def quartiles(values):
    """First quartile, median and third quartile as a dict; NaN for no values."""
    if len(values) < 2:
        q1 = q2 = q3 = values[0] if values else math.nan
    else:
        q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": q2, "q3": q3}
