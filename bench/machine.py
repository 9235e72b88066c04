# SPDX-License-Identifier: BSD-3-Clause
"""The machine a result comes from, and the most it can do."""

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from fastrnn import _core

# About a millisecond a call: long against starting a team of threads, short enough
# to fall between two interruptions.
PEAK_ROUNDS = 300_000


def fma_peak(dtype, n_threads, repeats=10):
    """Most GFLOP/s seen in `repeats` runs of the register-only FMA loop.

    That loop (csrc/kernels/peak.c) runs on the active target, so with ``FASTRNN_ISA``
    set a share of peak is the share of what that instruction set can do.
    """
    kernels = _core.kernels(dtype)
    kernels.fma_peak(n_threads, PEAK_ROUNDS)  # starts the threads
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        operations = kernels.fma_peak(n_threads, PEAK_ROUNDS)
        best = max(best, operations / (time.perf_counter() - start) / 1e9)
    return best


def _first_line(path, start=""):
    """First line of a system file beginning with `start`, or None."""
    path = Path(path)
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(start):
            return line.partition(":")[2].strip() if start else line.strip()
    return None


def _openmp_libraries():
    """The OpenMP runtimes in this process: more than one means two thread pools."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return []
    files = {line.split()[-1] for line in maps.read_text().splitlines()}
    names = (Path(file).name for file in files)
    return sorted(name for name in names if "omp" in name and ".so" in name)


def cpu_name():
    """The processor as the system names it."""
    name = _first_line("/proc/cpuinfo", "model name")
    return name or platform.processor() or platform.machine()


def describe(packages=("numpy", "torch")):
    """Everything a reader needs in order to judge a result, as plain values."""
    affinity = getattr(os, "sched_getaffinity", None)
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(affinity(0)) if affinity else os.cpu_count(),
        "governor": _first_line(governor),
        "load_average": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "fastrnn": version("fastrnn"),
        **{name: version(name) for name in packages},
        "isa": _core.active_target(),
        "compiler": _core.COMPILER,
        "openmp": _core.OPENMP,
        "openmp_libraries": _openmp_libraries(),
        "environment": {
            name: os.environ[name]
            for name in ("FASTRNN_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
            if name in os.environ
        },
    }
