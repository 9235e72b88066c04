# SPDX-License-Identifier: BSD-3-Clause
"""One library in a process: ``python -m bench.worker MODULE FD THREADS DTYPE CPUS``.

`bench.peers` starts this process, and talks to it over the pipe FD. The first message
of the process is ``{"versions", "settings", ...}`` or ``{"absent": reason}``. Then it
answers each request: ``prepare`` makes a case and returns its results, ``time`` times a
block, ``mean`` counts the calls of some seconds. After an answer ``{"error": text}``
the process ends. Besides the library, the interpreter needs NumPy only.
"""

import contextlib
import ctypes
import importlib
import os
import platform
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection

import numpy as np

from bench import adapters, timing
from bench.case import LayerCase, ModelCase

# For how many seconds each variant of a library is timed to find the fastest.
TRIAL = 0.3
PR_SET_PDEATHSIG = 1


def _confine(n_cpus):
    """Limit this process to `n_cpus` CPUs, and let it end when the parent ends.

    On Linux, the system ends it even if it is stopped at that moment.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:n_cpus])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _hello(module, n_threads, dtype):
    """Import the adapter; return the module, or None, and the first message."""
    try:
        adapter = importlib.import_module(module)
    except ImportError as error:
        return None, {"absent": f"{type(error).__name__}: {error}"}
    about = adapter.start(n_threads, dtype)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return adapter, {**about, "cpus": cpus, "python": platform.python_version()}


def _fastest(variants):
    """Make every variant, time each for a moment, and keep the fastest.

    Returns
    -------
    name : str
        The name of the fastest variant.
    side : object
    results : dict of str to ndarray
        The results of the side before it was timed, since those of a model depend on
        how long it has been trained.
    """
    best = None
    while variants:
        name, make = variants.popitem()
        side = make()
        results = {k: np.array(v) for k, v in side.results().items()}
        is_only = best is None and not variants
        if is_only:
            return name, side, results
        side.run()
        end = time.perf_counter() + TRIAL
        seconds = timing.block_time(side.run, 0.0)[0]
        while time.perf_counter() < end:
            seconds = min(seconds, timing.block_time(side.run, 0.0)[0])
        if best is None or seconds < best[0]:
            best = seconds, name, side, results
        del side, results
    return best[1:]


class _Session:
    """Answers requests about one case at a time."""

    def __init__(self, adapter, n_threads, dtype):
        self.adapter, self.n_threads, self.dtype = adapter, n_threads, dtype
        self.side = None

    def prepare(self, case):
        self.side = None  # frees the memory of the case before
        kinds = getattr(self.adapter, "CASES", (LayerCase, ModelCase))
        if not isinstance(case, kinds):
            return {"unsupported": f"it has no cases of the type {type(case).__name__}"}
        try:
            name, self.side, results = _fastest(self.adapter.variants(case, self.dtype))
        except adapters.UnsupportedError as error:
            return {"unsupported": str(error)}
        answer = {"variant": name, "results": results}
        if isinstance(case, LayerCase) and hasattr(self.adapter, "weight_bytes"):
            answer["weight_bytes"] = self.adapter.weight_bytes(self.side)
        return answer

    def time(self, block):
        seconds, cores = timing.block_time(self.side.run, block)
        answer = {"seconds": seconds, "cores": cores}
        if hasattr(self.adapter, "peak"):
            # Measured at once, while the processor has the clock that it had in the
            # work.
            answer["peak"] = self.adapter.peak(self.n_threads, self.dtype)
        return answer

    def mean(self, seconds):
        calls, seconds = timing.mean_time(self.side.run, seconds)
        return {"calls": calls, "seconds": seconds}


def serve(connection, module, n_threads, dtype, n_cpus):
    """Answer requests until the other end closes the pipe."""
    _confine(n_cpus)
    adapter, hello = _hello(module, n_threads, dtype)
    connection.send(hello)
    if adapter is None:
        return
    session = _Session(adapter, n_threads, dtype)
    with contextlib.suppress(EOFError):
        while True:
            request, argument = connection.recv()
            connection.send(getattr(session, request)(argument))


def main(arguments):
    """Run the command line; returns the exit status."""
    module, descriptor, n_threads, dtype, n_cpus = arguments
    connection = Connection(int(descriptor))
    try:
        serve(connection, module, int(n_threads), dtype, int(n_cpus))
    except Exception:
        # The parent shows the error, because a worker has no terminal.
        connection.send({"error": traceback.format_exc()})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
