# SPDX-License-Identifier: BSD-3-Clause
"""The machine a result comes from, and the most it can do."""

import os
import platform
import statistics
import sys
import time
from pathlib import Path

from fastrnn.native import core

# About a millisecond a call: long against starting a team of threads, short enough
# to fall between two interruptions.
PEAK_ROUNDS = 300_000
PEAK_REPEATS = 5


def fma_peak(dtype, n_threads, repeats=PEAK_REPEATS):
    """GFLOP/s of the register-only FMA loop now: the median of `repeats` runs.

    That loop (csrc/kernels/peak.c) runs on the active target, so with ``FASTRNN_ISA``
    set a share of peak is the share of what that instruction set can do. The clock of a
    processor falls under load, so this is called right after the work that it is
    compared with.
    """
    kernels = core.kernels(dtype)
    kernels.fma_peak(n_threads, PEAK_ROUNDS)  # wakes the threads
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        operations = kernels.fma_peak(n_threads, PEAK_ROUNDS)
        rates.append(operations / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def _first_line(path, start=""):
    """First line of a system file beginning with `start`, or None."""
    path = Path(path)
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(start):
            return line.partition(":")[2].strip() if start else line.strip()
    return None


def cpu_name():
    """The processor as the system names it."""
    name = _first_line("/proc/cpuinfo", "model name")
    return name or platform.processor() or platform.machine()


def build():
    """How the installed fastrnn was compiled, and the target that it runs."""
    return {
        "isa": core.active_target(),
        "compiler": core.COMPILER,
        "openmp": core.OPENMP,
    }


def cpus_allowed():
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def describe():
    """Everything a reader needs in order to judge a result, as plain values."""
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "cpus_allowed": cpus_allowed(),
        "governor": _first_line(governor),
        "load_average": os.getloadavg()[0],
        "python": sys.version.split()[0],
        **build(),
        "environment": {
            name: os.environ[name]
            for name in ("FASTRNN_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
            if name in os.environ
        },
    }
